"""Measure the shake: gradient noise, its scale, and what the correction makes of it.

:func:`noise_scale` at given parameters, :func:`momentum_errors` in mid-run, :func:`best_gamma` from
the dot products of a run's own steps. What the words mean is in docs/theory.md.
"""

from ..optim.gamma.criteria import best_gamma
from .dots import Blocks, Dots
from .estimator_errors import EstimatorError, MomentumErrors, momentum_errors
from .intervals import Estimate
from .noise_scale import NoiseScale, noise_scale
from .passes import Trail

__all__ = [
    "Blocks",
    "Dots",
    "Estimate",
    "EstimatorError",
    "MomentumErrors",
    "NoiseScale",
    "Trail",
    "best_gamma",
    "momentum_errors",
    "noise_scale",
]
