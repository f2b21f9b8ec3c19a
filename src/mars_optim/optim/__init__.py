"""The optimizers. torch only; nothing here knows the rest of the package."""

from .groups import ParamGroups, param_groups
from .mars import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo

__all__ = [
    "MARS",
    "MARSM",
    "MARSAdamW",
    "MARSLion",
    "MARSShampoo",
    "ParamGroups",
    "param_groups",
]
