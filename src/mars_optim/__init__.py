"""MARS: variance reduction inside the optimizers that large models are trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .guard import Baseline, BaselineRecorder, Guard, GuardSettings, Rollback
    from .optim import (
        MARS,
        MARSM,
        MARSAdamW,
        MARSLion,
        MARSShampoo,
        ParamGroups,
        create,
        list_optimizers,
        param_groups,
        release_gradients,
        variance_reduce,
    )
    from .optim.tools.migrate import migrate
    from .optim.transfer import transferred

__all__ = [
    "MARS",
    "MARSM",
    "Baseline",
    "BaselineRecorder",
    "Guard",
    "GuardSettings",
    "MARSAdamW",
    "MARSLion",
    "MARSShampoo",
    "ParamGroups",
    "Rollback",
    "__version__",
    "create",
    "list_optimizers",
    "migrate",
    "param_groups",
    "release_gradients",
    "transferred",
    "variance_reduce",
]


def __getattr__(name: str) -> Any:
    # The command line lives in this package too and must answer before torch is loaded.
    if name in ("Baseline", "BaselineRecorder", "Guard", "GuardSettings", "Rollback"):
        from . import guard

        return getattr(guard, name)
    if name in __all__:
        from . import optim

        return getattr(optim, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
