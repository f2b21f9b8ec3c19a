"""Set-up of all tests: reproducible, and quiet on a machine that others use too."""

import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

EVERYDAY = "not slow"  # what make test selects

settings.register_profile(
    "mars",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("everyday", settings.get_profile("mars"), max_examples=10)


def pytest_configure(config: pytest.Config) -> None:
    """Fewer examples where the slow tests are left out: make test-all has them all."""
    settings.load_profile("everyday" if config.option.markexpr == EVERYDAY else "mars")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``slow_but_one`` is ``slow`` for all cases of a test but the first, or each so-many-th."""
    seen: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        for mark in item.iter_markers("slow_but_one"):
            among = mark.kwargs.get("among")
            if seen[test] % among if among else seen[test]:
                item.add_marker("slow")
        seen[test] += 1


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test begins with one thread: a pilot's run in this process takes all cores and keeps
    them, and on tiny tensors a second thread only waits, which took ten times the CPU time."""
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
