"""Parameters of a group, and their names without what wrappers put into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Parts of a name that wrappers put in: DistributedDataParallel, torch.compile, FSDP1, checkpointing
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean(name: str) -> str:
    """A name without what wrappers put into it."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    return ".".join(parts[1:] if parts[0] == "module" and len(parts) > 1 else parts)


def bare(param: Any) -> Tensor:
    """The tensor of a (name, tensor) pair or of a bare tensor."""
    return param[1] if isinstance(param, tuple) else param  # type: ignore[no-any-return]


def tensors_of(group: Mapping[str, Any]) -> list[Tensor]:
    """A group's parameters, given bare or as (name, parameter) pairs."""
    return [bare(param) for param in group["params"]]


def kind_of(group: Mapping[str, Any]) -> str:
    """Kind of the group's parameters, as ``describe()`` shows it."""
    vectors = all(tensor.ndim < 2 for tensor in tensors_of(group))
    return str(group.get("kind", "vector" if vectors else "matrix"))
