"""Names of parameters, without what wrappers put into them."""

from __future__ import annotations

# Parts of a name that wrappers put in: DistributedDataParallel, torch.compile, FSDP1, checkpointing
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean(name: str) -> str:
    """A name without what wrappers put into it."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    return ".".join(parts[1:] if parts[0] == "module" and len(parts) > 1 else parts)
