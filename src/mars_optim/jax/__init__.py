"""MARS as optax transformations: ``mars`` in place of ``optax.adamw``; torch is not imported."""

try:
    import jax  # noqa: F401
    import optax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib", "optax"):
        raise
    raise ImportError(f'{error.name} is not installed: pip install "mars-optim[jax]"') from None

from .alias import by_name, mars
from .gamma import GammaState
from .transform import MarsState, scale_by_mars

__all__ = ["GammaState", "MarsState", "by_name", "mars", "scale_by_mars"]
