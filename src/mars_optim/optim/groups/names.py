"""Names of parameters, without what wrappers put into them."""

from __future__ import annotations

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
