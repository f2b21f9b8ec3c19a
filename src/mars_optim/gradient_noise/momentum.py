r"""How far the gradient estimators of a run are from the full gradient: bias^2 and variance.

What is held fixed, and what is drawn anew. The points x_{t-K}, ..., x_t are those that the run
went through. At each, the batch is drawn anew, independently: a *replicate* is one such history of
batches, and with it g_t, c_t (approx and exact), the clipped c_t, and the momentum m_t.
Expectations are over replicates::

    bias^2 = |E e - grad F(x_t)|^2,   variance = E|e - E e|^2,   error = bias^2 + variance

The momentum begins in one of two ways. In mid-run m_{t-K} = g_{t-K}: the oldest gradient stands for
all older ones. From the run's first step on it begins as optimizers do, at 0 and with
c_1 = (1 + k) g_1, and has Adam's bias correction 1 / (1 - beta1^t).

So the noise that the run's own path carries is left out: the points do not move with the batches.

The bias is measured without the noise that would drown it. With D_s = g(x_s, xi_s) -
g(x_{s-1}, xi_s), two gradients of one batch, E D_s is the full gradient's move, and the bias of a
linear estimator is a sum of such moves: that of c_t is k D_t, that of the momentum
B_t = beta1 (B_{t-1} - w_{t-1} D_t) + (1 - beta1) k D_t, with w the weight of all gradients so far:
1 in mid-run, 1 - beta1^t from the first step on, where D_1 = g_1. A clip adds (clipped - unclipped)
of the same replicate. The squared norm is then the mean of <b_r, b_s> over replicates r != s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..optim.correction import clipped, corrected_, norms_of, scales_of
from ..optim.groups.names import tensors_of
from .dots import Blocks, Dots
from .passes import Group, LossFunction, Passes, Trail, indices_of, untouched

MOMENTA = ("m_plain", "m_approx", "m_exact", "m_approx_clipped", "m_exact_clipped")
ESTIMATORS = ("g", "c_approx", "c_exact", "c_approx_clipped", "c_exact_clipped", *MOMENTA)
DOUBLE = "m_double"  # the unclipped approximate momentum at twice the gamma
_FORMS = ("approx", "exact", "approx_clipped", "exact_clipped")

Vectors = dict[str, list[Tensor]]


@dataclass(frozen=True, slots=True)
class Form:
    """Settings of one group's estimators.

    Args:
        beta1: of the momentum.
        gamma: scale of the correction.
        clip: largest norm of a tensor's c_t, None for no clip.
    """

    beta1: float
    gamma: float
    clip: float | None

    @classmethod
    def of(cls, group: Group) -> Form:
        """As the group says; a group of another optimizer has no gamma and no clip.

        Raises:
            ValueError: for a group without ``betas``.
        """
        if "betas" not in group:
            raise ValueError(
                "the optimizer's groups have no 'betas', so there is no momentum like "
                "Adam's: give groups of mars_optim.param_groups(model, ...)"
            )
        gamma = group.get("gamma_now", group.get("gamma", 0.0))  # where it has a schedule
        return cls(float(group["betas"][0]), float(gamma), group.get("clip"))

    @property
    def gain(self) -> float:
        """k = gamma beta1 / (1 - beta1)."""
        return self.gamma * self.beta1 / (1.0 - self.beta1)


@dataclass(slots=True)
class Walk:
    """One replicate of one group, from the oldest point to the newest.

    Args:
        form: of the group.
        from_start: whether it begins with the run's first step, and not in the middle.
        last: this replicate's gradient at the point before, of the batch drawn there.
        steps: taken so far.
        sums: the momenta, not yet divided by the weight of all gradients so far.
        biases: of the momenta "plain" and "linear" (approx and exact alike).
        now: estimators of the newest step that have no memory.
    """

    form: Form
    from_start: bool
    last: list[Tensor]
    steps: int = 0
    sums: Vectors = field(default_factory=dict)
    biases: Vectors = field(default_factory=dict)
    now: Vectors = field(default_factory=dict)

    @classmethod
    def begun(cls, form: Form, g: list[Tensor], *, from_start: bool) -> Walk:
        """At the oldest point, with its gradient."""
        if from_start:
            zeros = [torch.zeros_like(t) for t in g]
            walk = cls(form, from_start, zeros)
            walk.step(g, zeros)
            return walk
        as_clipped = g if form.clip is None else clipped_to(form.clip, g)
        sums = dict.fromkeys(("plain", "approx", "exact"), g)
        sums |= {f"{name}_clipped": as_clipped for name in ("approx", "exact")}
        copies = {name: [t.clone() for t in ts] for name, ts in sums.items()}
        return cls(form, from_start, g, sums=copies)

    @property
    def weight(self) -> float:
        """Weight of all gradients so far in a momentum."""
        return 1.0 - self.form.beta1**self.steps if self.from_start else 1.0

    def step(self, g: list[Tensor], g_at_previous: list[Tensor]) -> None:
        """One step on: two gradients of one new batch, here and at the point before."""
        form, k = self.form, self.form.gain
        moves = list(torch._foreach_sub(g, g_at_previous))  # D
        cs = {
            "approx": corrected_([t.clone() for t in self.last], g, gain=k),
            "exact": corrected_([t.clone() for t in g_at_previous], g, gain=k),
        }
        for name in ("approx", "exact"):
            c = cs[name]
            cs[f"{name}_clipped"] = c if form.clip is None else clipped_to(form.clip, c)
        self._average("plain", g)
        for name, c in cs.items():
            self._average(name, c)
        self._drift("plain", moves, 0.0)
        self._drift("linear", moves, k)
        self.now = {"g": g, **{f"c_{name}": c for name, c in cs.items()}}
        self.now["bias"] = list(torch._foreach_mul(moves, k))
        self.last = g
        self.steps += 1

    def _average(self, name: str, c: list[Tensor]) -> None:
        """m <- beta1 m + (1 - beta1) c."""
        m = self.sums.setdefault(name, [torch.zeros_like(t) for t in c])
        torch._foreach_lerp_(m, c, 1.0 - self.form.beta1)

    def _drift(self, name: str, moves: list[Tensor], gain: float) -> None:
        """B <- beta1 (B - w D) + (1 - beta1) k D, with the weight w before this step."""
        beta1 = self.form.beta1
        b = self.biases.setdefault(name, [torch.zeros_like(t) for t in moves])
        torch._foreach_mul_(b, beta1)
        factor = (1.0 - beta1) * gain - beta1 * self.weight
        torch._foreach_add_(b, moves, alpha=factor)

    def ends(self) -> Iterable[tuple[str, list[Tensor], list[Tensor]]]:
        """Name, value and an unbiased sample of the bias of each estimator."""
        yield "g", self.now["g"], [torch.zeros_like(t) for t in self.last]
        for name in _FORMS:
            yield f"c_{name}", *self._with_clip(name, self.now, "c_", self.now["bias"])
        m, b = (
            {n: list(torch._foreach_div(ts, self.weight)) for n, ts in vs.items()}
            for vs in (self.sums, self.biases)
        )
        yield "m_plain", m["plain"], b["plain"]
        for name in _FORMS:
            yield f"m_{name}", *self._with_clip(name, m, "", b["linear"])
        yield DOUBLE, _beyond(m["plain"], m["approx"]), _beyond(b["plain"], b["linear"])

    def _with_clip(
        self, name: str, values: Vectors, prefix: str, bias: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The value, and the bias of its unclipped form plus what the clip adds."""
        value, linear = values[prefix + name], values[prefix + name.removesuffix("_clipped")]
        return value, list(torch._foreach_add(torch._foreach_sub(value, linear), bias))


def clipped_to(clip: float, c: list[Tensor]) -> list[Tensor]:
    """Each tensor scaled to a norm of at most ``clip``."""
    return clipped(c, scales_of(norms_of(c), clip), in_place=False)


def _beyond(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """2 b - a."""
    return list(torch._foreach_lerp(a, b, 2.0))


@dataclass(frozen=True, slots=True)
class Histories:
    """Results of all replicates on each estimator, of one group or of all groups.

    Args:
        values: of the estimators, by name.
        biases: samples of E e - grad F(x_t).
        target: samples of grad F(x_t), of little noise.
    """

    values: dict[str, Dots]
    biases: dict[str, Dots]
    target: Dots

    def __add__(self, other: Histories) -> Histories:
        return Histories(
            {name: d + other.values[name] for name, d in self.values.items()},
            {name: d + other.biases[name] for name, d in self.biases.items()},
            self.target + other.target,
        )


def histories(
    model: nn.Module,
    loss_fn: LossFunction,
    draw: Callable[[int], Any],
    groups: Sequence[Group],
    trail: Trail,
    *,
    from_start: bool = False,
    replicates: int = 8,
    on_gradients: Callable[[int], None] = lambda count: None,
) -> list[Histories]:
    """Draw the replicates; everything is left as it was, bit for bit.

    Takes replicates * (2 * len(trail.points) - 1) gradients, and memory of about 20 * replicates
    copies of the parameters, in float32 at least.

    Args:
        model: in the mode in which it is trained; one process, not wrapped for several.
        loss_fn: (model, batch) -> mean loss of the batch, 0-d.
        draw: i -> the i-th of independent batches, on the model's device.
        groups: with ``params`` and ``betas``, and for MARS ``gamma`` and ``clip``.
        trail: of the run, recorded at the present parameters too; at least two points.
        from_start: whether its oldest point is that of the run's first gradient (default: False).
        replicates: number of independent histories, >= 3 (default: 8).
        on_gradients: told the number of gradients taken, after each step of each replicate.

    Returns:
        One :class:`Histories` per group.
    """
    params = [p for group in groups for p in tensors_of(group)]
    forms, indices = [Form.of(group) for group in groups], indices_of(groups)
    if len(trail.points) < 2:
        raise ValueError(f"trail has {len(trail.points)} points: at least 2 are needed")
    order = {id(p): i for i, p in enumerate(trail.params)}
    if missing := [p for p in params if id(p) not in order]:
        raise ValueError(f"trail lacks {len(missing)} of the groups' parameters")
    points = [[point[order[id(p)]] for p in params] for point in trail.points]
    kinds = (*ESTIMATORS, DOUBLE)
    names = (*(f"{e}/value" for e in kinds), *(f"{e}/bias" for e in kinds), "target")
    kept = {name: Blocks(replicates, indices) for name in names}
    with untouched(model, params):
        passes = Passes(model, loss_fn, params)
        begin = [partial(Walk.begun, form, from_start=from_start) for form in forms]
        for r in range(replicates):
            walks = _walk(passes, points, begin, indices, draw, r, on_gradients)
            _keep(kept, r, walks)
    dots = {name: blocks.dots() for name, blocks in kept.items()}
    return [
        Histories(
            {e: dots[f"{e}/value"][i] for e in kinds},
            {e: dots[f"{e}/bias"][i] for e in kinds},
            dots["target"][i],
        )
        for i in range(len(groups))
    ]


def _walk(
    passes: Passes,
    points: list[list[Tensor]],
    begin: Sequence[Callable[[list[Tensor]], Walk]],
    indices: list[list[int]],
    draw: Callable[[int], Any],
    replicate: int,
    on_gradients: Callable[[int], None],
) -> list[Walk]:
    number = replicate * len(points)
    passes.go_to(points[0])
    first = passes.gradient(draw(number), number)
    walks = [begun([first[i] for i in ix]) for begun, ix in zip(begin, indices, strict=True)]
    for s in range(1, len(points)):
        number += 1
        batch = draw(number)
        passes.go_to(points[s - 1])
        g_at_previous = passes.gradient(batch, number)
        passes.go_to(points[s])
        g = passes.gradient(batch, number)
        for walk, ix in zip(walks, indices, strict=True):
            walk.step([g[i] for i in ix], [g_at_previous[i] for i in ix])
        on_gradients(2)
    return walks


def _keep(kept: dict[str, Blocks], replicate: int, walks: list[Walk]) -> None:
    for ends in zip(*(walk.ends() for walk in walks), strict=True):
        (name, *_) = ends[0]
        values = [t for _, value, _ in ends for t in value]
        biases = [t for _, _, bias in ends for t in bias]
        kept[f"{name}/value"].add(replicate, values)
        kept[f"{name}/bias"].add(replicate, biases)
        if name == "m_plain":
            kept["target"].add(replicate, torch._foreach_sub(values, biases))
