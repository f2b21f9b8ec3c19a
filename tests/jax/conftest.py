import os
from collections.abc import Iterator

import pytest

# steps here are tiny, and compiled once each: what is fast to compile is fast
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """The oracle is in float64; a test that is not says so by its arrays."""
    with jax.enable_x64(True):
        yield
