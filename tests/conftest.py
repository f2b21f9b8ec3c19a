"""Set-up of all tests: reproducible, and quiet on a machine that others use too."""

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
