"""The oracle as a backend, for ``foreach=False``: a plain loop over the tensors."""

from __future__ import annotations

import torch

from .. import reference
from ..distributed.tensor_parallel import Line
from .base import Bucket

OWN: frozenset[str] = frozenset()


def why_not(bucket: Bucket) -> str | None:
    """The reason why the loop cannot take this step, or None if it can."""
    if torch.compiler.is_compiling():
        return (
            "foreach=False cannot be compiled, its loop reads a number of each tensor: leave "
            "foreach=None, or do not compile the step"
        )
    if bucket.params[0].device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return (
            "foreach=False cannot be captured in a CUDA graph, its loop reads numbers of tensors: "
            "leave foreach=None, or do not capture the step"
        )
    if bucket.shards is not None and isinstance(bucket.shards.mesh, Line):
        return (
            "foreach=False does not take tensor-parallel shards: leave foreach=None, which puts "
            "together what a step needs of the whole"
        )
    return None


def step(bucket: Bucket) -> None:
    """One MARS step of whole tensors."""
    bucket.observe()
    reference.update(
        bucket.params, bucket.grads, bucket.states, bucket.settings, global_norm=bucket.norm
    )
