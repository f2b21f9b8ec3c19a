"""Alarms: none in healthy noise, soon in a real spike. Numbers in, numbers out."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

import pytest

from mars_optim.guard import Alarm, Baseline, Detector, GuardSettings

Noise = Callable[[random.Random], Iterator[float]]
SETTINGS = GuardSettings()


def normal(rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.gauss(0, 1)


def heavy_tailed(rng: random.Random) -> Iterator[float]:
    """Student's t with three degrees of freedom."""
    while True:
        yield rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2.0) / 3.0)


def skewed(rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.lognormvariate(0, 1) - 1.65


def sluggish(rng: random.Random) -> Iterator[float]:
    """Neighbours alike: a memory of ten steps."""
    x = rng.gauss(0, 1)
    while True:
        x = 0.9 * x + math.sqrt(1 - 0.81) * rng.gauss(0, 1)
        yield x


NOISES: list[Noise] = [normal, heavy_tailed, skewed, sluggish]


def run(noise: Noise, seed: int, share: float, steps: int) -> list[float]:
    """Losses falling from 2.3 by a power law, with noise of this share of 2."""
    draws = noise(random.Random(f"{noise.__name__} {seed}"))
    return [
        1.8 + 2.0 * (1000 + step) ** -0.2 + 2.0 * share * z
        for step, z in zip(range(steps), draws, strict=False)
    ]


def watched(losses: list[float], history: int, settings: GuardSettings = SETTINGS) -> list[Alarm]:
    """The alarms after ``history`` losses that count as the baseline."""
    detector = Detector(settings, Baseline(losses[:history]))
    fed = enumerate(losses[history:], start=1)
    return list(itertools.chain.from_iterable(detector.feed(i, loss) for i, loss in fed))


@pytest.mark.slow_but_one
@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("noise", NOISES)
def test_no_healthy_run_of_twenty_thousand_steps_is_rolled_back(noise: Noise, share: float) -> None:
    """800,000 steps in all and no false alarm: fewer than one in 250,000 steps, at 95 %."""
    for seed in range(5):
        assert watched(run(noise, seed, share, 20_500), history=500) == []


@pytest.mark.parametrize("noise", NOISES)
def test_a_jump_of_the_loss_is_seen_within_the_patience(noise: Noise) -> None:
    for seed in range(10):
        losses = run(noise, seed, 0.02, 900)
        noise_of = Baseline(losses[:500]).loss_noise(50, 12)
        jump = max(8.5 * noise_of.middle, 2.0 * noise_of.tail) + 0.12
        losses = [loss + (jump if i >= 600 else 0.0) for i, loss in enumerate(losses)]
        first = watched(losses, history=500)[0]
        assert first.signal == "loss"
        assert 101 <= first.step <= 101 + 2 * SETTINGS.patience
        assert first.since <= first.step


def test_a_slow_rise_that_the_running_median_follows_is_a_drift() -> None:
    losses = run(normal, 1, 0.01, 3000)
    losses = [loss + max(0, i - 1000) * 0.0005 for i, loss in enumerate(losses)]
    first = watched(losses, history=500)[0]
    assert first.signal == "drift"
    assert first.since <= 700 < first.step  # since the lowest median, before or at the turn


def test_single_bad_batch_is_no_alarm_but_nonfinite_loss_is_one() -> None:
    losses = run(normal, 1, 0.01, 700)
    losses[600] = 9.0
    assert watched(losses, history=500) == []
    for bad in (math.nan, math.inf):
        losses[650] = bad
        (only,) = watched(losses[:651], history=500)
        assert (only.signal, only.step, only.since) == ("nonfinite", 151, 151)


@pytest.mark.parametrize(
    ("signal", "healthy", "bad"),
    [("grad_norm", 1.2, 9.0), ("clip_share", 0.3, 0.9), ("step_seconds", 0.12, 0.4)],
)
def test_signal_is_on_while_over_half_of_last_values_are_beyond(
    signal: str, healthy: float, bad: float
) -> None:
    losses = run(normal, 1, 0.01, 500)
    history = Baseline(losses, [1.0] * 500, [0.1] * 50, [0.1] * 500)
    detector = Detector(SETTINGS, history)
    on = []
    for step in range(1, 61):
        value = bad if 20 < step <= 40 else healthy
        alarms = detector.feed(step, losses[-1], **{signal: value})
        on += [step for alarm in alarms if alarm.signal == signal]
    assert on == list(range(27, 46))  # 7 of 12 beyond, until 6 are


def test_signals_that_the_history_has_not_are_never_on() -> None:
    losses = run(normal, 1, 0.01, 200)
    detector = Detector(SETTINGS, Baseline(losses))
    for step in range(40):
        assert not detector.feed(step, losses[-1], grad_norm=1e9, clip_share=1.0, step_seconds=1e9)


def test_a_restored_detector_goes_on_as_if_nothing_had_been() -> None:
    losses = run(normal, 3, 0.02, 800)
    losses = [loss + (2.0 if i >= 700 else 0.0) for i, loss in enumerate(losses)]
    history = Baseline(losses[:500])
    whole, first, second = (Detector(SETTINGS, history) for _ in range(3))
    expected = [whole.feed(i, loss) for i, loss in enumerate(losses[500:])]
    made = [first.feed(i, loss) for i, loss in enumerate(losses[500:705])]
    second.load_state_dict(first.state_dict())
    made += [second.feed(i, loss) for i, loss in enumerate(losses[705:], start=205)]
    assert made == expected
    assert any(expected)


def test_losses_below_zero_have_noise_and_spikes_too() -> None:
    losses = [loss - 10.0 for loss in run(normal, 1, 0.02, 800)]
    assert watched(losses, history=500) == []
    spiked = [loss + (5.0 if i >= 600 else 0.0) for i, loss in enumerate(losses)]
    assert watched(spiked, history=500)[0].signal == "loss"
