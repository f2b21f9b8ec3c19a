"""The optimizers. torch only; nothing here knows the rest of the package."""

from .mars import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from .named import create, list_optimizers
from .param_groups import ParamGroups, param_groups
from .tools.migrate import migrate
from .tools.release import GradientRelease, release_gradients
from .tools.variance_reduce import variance_reduce
from .tools.wrap import VarianceReduction
from .transfer import transferred

__all__ = [
    "MARS",
    "MARSM",
    "GradientRelease",
    "MARSAdamW",
    "MARSLion",
    "MARSShampoo",
    "ParamGroups",
    "VarianceReduction",
    "create",
    "list_optimizers",
    "migrate",
    "param_groups",
    "release_gradients",
    "transferred",
    "variance_reduce",
]
