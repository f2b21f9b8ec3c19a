"""The optimizers. torch only; nothing here knows the rest of the package."""

from .groups import ParamGroups, param_groups
from .mars import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from .migrate import migrate
from .wrap import VarianceReduction, variance_reduce

__all__ = [
    "MARS",
    "MARSM",
    "MARSAdamW",
    "MARSLion",
    "MARSShampoo",
    "ParamGroups",
    "VarianceReduction",
    "migrate",
    "param_groups",
    "variance_reduce",
]
