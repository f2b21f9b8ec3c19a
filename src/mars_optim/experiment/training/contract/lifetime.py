"""Checks of a run as a whole: it falls, repeats itself, stops and goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .flaw import BESIDE, BLOCKS, FEW, Flaw, Severity, Tried, distance, way_between, why
from .trial import Trial, has_modes, switch_mode

STEPS = 100  # over which a quadratic has to fall
LATE = 1e-2  # of the way gone: beyond it a resumed run is another run


def _closure(tried: Tried) -> Iterator[Flaw]:
    """A step with and without a closure."""
    if tried.closure:
        yield Flaw(
            "needs a closure",
            BESIDE,
            "Its step needs a closure: each evaluates loss and gradient again, which takes time.",
        )
        return
    trial = tried.trial()
    calls: list[bool] = []

    def closure() -> Any:
        calls.append(torch.is_grad_enabled())
        return trial.gradient()

    try:
        loss = trial.optimizer.step(closure)
    except Exception as error:
        yield Flaw("takes no closure", BESIDE, f"Its step takes no closure: {why(error)}.")
        return
    if calls != [True] or loss is None:
        times = "once" if len(calls) == 1 else f"{len(calls)} times"
        yield Flaw(
            "closure not as torch's",
            BESIDE,
            f"step(closure) calls the closure {times}, with gradients "
            f"{'on' if all(calls) else 'off'}, and returns {'no' if loss is None else 'its'} loss.",
        )


def _modes(tried: Tried) -> Iterator[Flaw]:
    """train() and eval()."""
    trial = tried.trial().step(FEW)
    if not has_modes(trial.optimizer):
        return
    yield Flaw(
        "has train() and eval()",
        BESIDE,
        "It has train() and eval(), which we call: the weights that are judged are averages, and "
        "it keeps a schedule of its own (own_schedule = true unless you want both).",
    )
    before = trial.weights()
    switch_mode(trial.optimizer, training=False)
    switch_mode(trial.optimizer, training=True)
    away = distance(before, trial.weights())
    if away:
        yield Flaw(
            "evaluation moves the weights",
            BESIDE,
            f"eval() and train() again move the weights by {away:.1g} of their size: a run depends "
            "a little on how often it is evaluated.",
        )


def _lowers(tried: Tried) -> Iterator[Flaw]:
    """A quadratic falls."""
    trial = tried.trial()
    first = trial.loss().item()
    trial.step(STEPS)
    switch_mode(trial.optimizer, training=False)
    last = trial.loss().item()
    if not last < first:
        yield Flaw(
            "does not lower a quadratic",
            BLOCKS,
            f"In {STEPS} steps at lr = {tried.chosen.lr:g} a quadratic goes from {first:.3g} to "
            f"{last:.3g}.",
        )


def _resumes(tried: Tried) -> Iterator[Flaw]:
    """A run goes on from a checkpoint."""
    trial = tried.trial().step(1)
    if not _through_a_file(trial.optimizer.state_dict())[1]:
        text = "Its state_dict() holds objects that torch.load(weights_only=True) refuses."
        yield Flaw("state is no plain data", BESIDE, text)
    yield from _goes_on(tried, torch.float32, "", BLOCKS)
    try:
        tried.trial(dtype=torch.bfloat16).step(1)
    except Exception as error:
        text = f"It does not take bfloat16 parameters: {why(error)}."
        yield Flaw("refuses bfloat16", BESIDE, text)
        return
    try:
        yield from _goes_on(tried, torch.bfloat16, " in bfloat16", BESIDE)
    except Exception as error:
        text = f"A run in bfloat16 fails when it resumes from its state_dict(): {why(error)}."
        yield Flaw("does not resume bfloat16", BESIDE, text)


def _goes_on(tried: Tried, dtype: torch.dtype, kind: str, severity: Severity) -> Iterator[Flaw]:
    """Compare a run in two halves with one in one go; ``severity`` is of a large difference."""
    whole, halves = tried.trial(dtype=dtype), tried.trial(dtype=dtype)
    start = whole.weights()
    whole.step(2 * FEW)
    resumed = _resumed(halves.step(FEW), tried, dtype)
    way = way_between(start, whole.weights())
    away = way_between(whole.weights(), resumed.step(FEW).weights())
    if away:
        yield Flaw(
            f"a resumed run differs{kind}",
            severity if away > LATE * way else BESIDE,
            f"A run{kind} that goes on from its state_dict() at step {FEW} is off by "
            f"{away / way:.1g} of the way gone, {FEW} steps later.",
        )


def _resumed(trial: Trial, tried: Tried, dtype: torch.dtype) -> Trial:
    """Another trial that goes on from this one's state."""
    resumed = tried.trial(dtype=dtype)
    with torch.no_grad():
        for name, p in resumed.params.items():
            p.copy_(trial.params[name])
    resumed.optimizer.load_state_dict(_through_a_file(trial.optimizer.state_dict())[0])
    resumed.at = trial.at
    return resumed


def _through_a_file(state: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The state as torch.save keeps it, and whether it is plain data."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True), True
    except Exception:
        file.seek(0)
        return torch.load(file, weights_only=False), False


def _repeats(tried: Tried) -> Iterator[Flaw]:
    """Two equal runs, and one beside another optimizer."""
    one, other = tried.trial().step(FEW).weights(), tried.trial().step(FEW).weights()
    if distance(one, other):
        yield Flaw(
            "does not repeat",
            BESIDE,
            f"Two equal runs differ by {distance(one, other):.1g} after {FEW} steps: it draws "
            "numbers that nobody seeds, or keeps something between two runs.",
        )
        return
    mine, another = tried.trial(), tried.trial(lr=tried.chosen.lr / 2)
    for _ in range(FEW):
        another.step()
        mine.step()
    if distance(one, mine.weights()):
        yield Flaw(
            "shares state",
            BLOCKS,
            "A second optimizer of its class in the same process changes what it does.",
        )


def _draws(tried: Tried) -> Iterator[Flaw]:
    """Numbers that a step draws from torch's random generator."""
    trial = tried.trial().step(1)
    trial.gradient()
    numbers = torch.get_rng_state()
    trial.update()
    if not torch.equal(numbers, torch.get_rng_state()):
        yield Flaw(
            "draws torch's random numbers",
            BESIDE,
            "Its step draws from torch's global generator: dropout and data order drawn from the "
            "same one differ from other arms'.",
        )


def changed_settings(before: Mapping[str, Any]) -> list[Flaw]:
    """Whether torch's settings are as they were."""
    changed = [name for name, value in settings().items() if before[name] != value]
    if not changed:
        return []
    text = f"It changes settings of torch, for all that runs after it: {', '.join(changed)}."
    return [Flaw("changes torch's settings", BESIDE, text)]


def settings() -> dict[str, Any]:
    """Those of torch that a step might change."""
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


CHECKS = (_closure, _modes, _lowers, _resumes, _repeats, _draws)
