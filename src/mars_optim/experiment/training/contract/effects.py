"""Checks of single steps: what a learning rate, a decay and a group's keys do."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ....errors import UserError
from .flaw import BESIDE, BLOCKS, FEW, Flaw, Tried, distance, way_between, why

OFF = 0.05  # relative error of a ratio of steps
DECAY = 0.1


def _parameters_kept(tried: Tried) -> Iterator[Flaw]:
    """A step leaves each parameter's dtype, shape, device and memory."""
    trial = tried.trial()
    before = {name: (_what(p), p.data_ptr()) for name, p in trial.params.items()}
    trial.step(FEW)
    for name, p in trial.params.items():
        what = before[name][0]
        if what != _what(p):
            text = f"Its step makes a {name} {_what(p)} that was {what}."
            yield Flaw("changes a parameter's kind", BLOCKS, text)
            return
    if any(p.data_ptr() != before[name][1] for name, p in trial.params.items()):
        yield Flaw(
            "moves a parameter's memory",
            BESIDE,
            "Its step puts parameters into other memory: views of them (flat buffers, CUDA graphs) "
            "keep the old values.",
        )


def _lr_reaches(tried: Tried) -> Iterator[Flaw]:
    """A learning rate that is changed in the groups between two steps."""
    steps = [_next_steps(tried, factor) for factor in (1.0, 0.5, 0.0)]
    full, half, none = (way_between(*step) for step in steps)
    if not full:
        return
    if not distance(steps[0][1], steps[1][1]):
        if distance(_next_steps(tried, 1.0, 2)[1], _next_steps(tried, 0.5, 2)[1]):
            text = "A learning rate written into its groups reaches the step after the next only."
            yield Flaw("lr comes a step late", BESIDE, text)
            return
        yield Flaw(
            "lr does not reach the step",
            BLOCKS,
            "A learning rate written into its groups, as a schedule does, changes nothing.",
        )
        return
    if abs(half / full - 0.5) > OFF:
        yield Flaw(
            "step is not in proportion to lr",
            BESIDE,
            f"At half the learning rate the next step is {half / full:.2g} of the whole.",
        )
    if none:
        text = f"At lr = 0 it still takes {none / full:.2g} of a step."
        yield Flaw("moves at lr = 0", BESIDE, text)


def _next_steps(
    tried: Tried, factor: float, count: int = 1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after steps at ``factor`` of the learning rate."""
    trial = tried.trial().step(FEW)
    before = trial.weights()
    trial.scale_lr(factor)
    return before, trial.step(count).weights()


def _groups(tried: Tried) -> Iterator[Flaw]:
    """Two groups with learning rates of their own."""
    shapes, lr = ["matrix", "wide"], tried.chosen.lr
    if not set(shapes) <= set(tried.shapes):
        return
    try:
        trial = tried.trial(shapes, keys={"matrix": {"lr": lr}, "wide": {"lr": 0.1 * lr}})
        before = trial.weights()
        after = trial.step(FEW).weights()
    except Exception as error:
        yield Flaw(
            "refuses groups with lr of their own",
            BESIDE,
            f"It takes no groups with learning rates of their own: {why(error)}.",
        )
        return
    whole = tried.trial(shapes).step(FEW).weights()
    share = way_between(before, after, "wide") / way_between(before, whole, "wide")
    if share > 0.5:
        yield Flaw(
            "lr of a group is ignored",
            BESIDE,
            (
                f"A group at a tenth of the learning rate goes {share:.2g} of the way, so "
                "lr_1d and similar settings have no effect."
            ),
        )


def _decay(tried: Tried) -> Iterator[Flaw]:
    """Weight decay, and a group without it."""
    if not tried.chosen.takes("weight_decay"):
        yield Flaw("has no weight decay", BESIDE, "It has no weight_decay.")
        return
    decayed, free = {"weight_decay": DECAY}, {"matrix": {"weight_decay": 0.0}}
    without = tried.trial(["matrix"], options={"weight_decay": 0.0}).step(FEW)
    having = tried.trial(["matrix"], options=decayed).step(FEW)
    if not distance(without.weights(), having.weights()):
        text = f"weight_decay = {DECAY} is taken and changes nothing."
        yield Flaw("weight decay does nothing", BESIDE, text)
        return
    try:
        freed = tried.trial(["matrix"], keys=free, options=decayed).step(FEW)
    except UserError:  # it takes no groups, which is told
        freed = without
    if distance(without.weights(), freed.weights()):
        yield Flaw(
            "weight decay of a group is ignored",
            BESIDE,
            ("A group with weight_decay = 0 is still decayed, and with it vectors and embeddings."),
        )
    yield from _kind_of_decay(tried)


def _kind_of_decay(tried: Tried) -> Iterator[Flaw]:
    """Kind of the decay in one step: ours is lr times weight decay times the weights."""
    steps = []
    for decay in (0.0, DECAY):
        trial = tried.trial(["matrix"], options={"weight_decay": 0.0}).step(FEW)
        for group in trial.optimizer.param_groups:
            group["weight_decay"] = decay
        weights = trial.weights()["matrix"].double()
        steps.append(trial.step().weights()["matrix"].double() - weights)
    change = steps[1] - steps[0]
    if not change.any():
        return  # it does not read the groups' own
    # change = - coefficient lr decay w, as far as it is in proportion to w
    lr = float(trial.optimizer.param_groups[0]["lr"])
    coefficient = -float((change * weights).sum() / weights.square().sum()) / (lr * DECAY)
    rest = float((change + coefficient * lr * DECAY * weights).norm() / change.norm())
    if rest > 0.5:
        yield Flaw(
            "decays through the gradient",
            BESIDE,
            "What its weight decay adds to a step is not in proportion to the weights, as where it "
            "goes into the gradient (L2): the same number is another strength than elsewhere.",
        )
    elif abs(coefficient - 1) > 0.2:
        yield Flaw(
            "decays by another amount",
            BESIDE,
            f"Its weight decay takes {coefficient:.2g} times lr times decay of the weights.",
        )


def _strides(tried: Tried) -> Iterator[Flaw]:
    """A transposed parameter."""
    plain, turned = tried.trial(["matrix"]), tried.trial(["matrix"], turned=True)
    try:
        other = turned.step(FEW).weights()
    except Exception as error:
        text = f"It does not take a transposed parameter: {why(error)}."
        yield Flaw("refuses other strides", BESIDE, text)
        return
    start, mine = plain.weights(), plain.step(FEW).weights()
    away = way_between(mine, other) / way_between(start, mine)
    if away > 0.1:
        yield Flaw(
            "other strides step otherwise",
            BESIDE,
            f"A transposed parameter ends {away:.2g} of the way from where a contiguous one does.",
        )


def _options(tried: Tried) -> Iterator[Flaw]:
    """A keyword argument that it does not have."""
    try:
        tried.trial(options={"no_such_option": 1})
    except Exception:
        return
    text = "It accepts keyword arguments that it does not have, so a misspelt one goes unnoticed."
    yield Flaw("takes any keyword", BESIDE, text)


def _what(p: nn.Parameter) -> str:
    frozen = "" if p.requires_grad else ", frozen"
    return f"{p.dtype} {tuple(p.shape)} on {p.device}{frozen}".replace("torch.", "")


CHECKS = (_parameters_kept, _lr_reaches, _groups, _decay, _strides, _options)
