"""Set-up of all tests: reproducible, and quiet on a machine that others use too."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mars",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mars")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``slow_but_one`` is ``slow`` for all cases of a test but the first."""
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if item.get_closest_marker("slow_but_one") and test in seen:
            item.add_marker("slow")
        seen.add(test)
