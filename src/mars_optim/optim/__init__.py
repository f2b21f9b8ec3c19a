"""The optimizers. torch only; nothing here knows the rest of the package."""

from .groups import ParamGroups, param_groups
from .mars import MARS
from .migrate import migrate
from .named import MARSM, MARSAdamW, MARSLion, MARSShampoo
from .release import GradientRelease, release_gradients
from .wrap import VarianceReduction, variance_reduce

__all__ = [
    "MARS",
    "MARSM",
    "GradientRelease",
    "MARSAdamW",
    "MARSLion",
    "MARSShampoo",
    "ParamGroups",
    "VarianceReduction",
    "migrate",
    "param_groups",
    "release_gradients",
    "variance_reduce",
]
