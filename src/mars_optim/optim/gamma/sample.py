"""Which elements of its tensors a schedule looks at: by their numbers in the whole tensor.

Evenly spaced, so the cost does not grow with the model. A process that holds a shard looks at those
of them that lie in it: the sample is the same whatever the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...gamma_numbers import sampled, spacing
from ..backends.amp import Amp
from ..backends.cpu import look
from ..distributed.sharded import Shards, as_real, like, local
from ..distributed.sums import Processes


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """This process's part of a tensor's sample.

    Args:
        shape: of the whole tensor, of real numbers.
        among: the processes that cut it; () if it is whole here.
        places: which numbers of the sample are here; None for all.
        at: where these elements lie here, row by row; None for all of the sample.
    """

    shape: tuple[int, ...]
    among: Processes = ()
    places: Tensor | None = None
    at: Tensor | None = None

    @property
    def size(self) -> int:
        """How many sampled elements are here."""
        return sampled(self.shape) if self.places is None else len(self.places)

    def of(self, values: Tensor) -> Tensor:
        """The sampled elements of a tensor like the parameter, or of this process's shard."""
        if self.at is not None:
            return values.reshape(-1).index_select(0, self.at)
        apart = spacing(self.shape)
        if values.is_contiguous() and not torch.compiler.is_compiling():
            return values.as_strided((self.size,), (apart,))  # one call instead of two
        return values.reshape(-1)[::apart]


def whole_shape(param: Tensor) -> tuple[int, ...]:
    """Shape of the whole tensor, of real numbers."""
    shards, here = Shards.of([param]), as_real(local(param))
    return tuple(here.shape if shards is None else (*shards.shapes[0], *here.shape[param.ndim :]))


def shape_of(param: Tensor) -> tuple[int, ...]:
    """Shape of a parameter; a lazy one has no element yet."""
    return (0,) if is_lazy(param) else param.shape


def piece_of(param: Tensor) -> Piece:
    """This process's part of the parameter's sample."""
    if is_lazy(param):
        return Piece(shape_of(param))
    shape, shards, here = whole_shape(param), Shards.of([param]), as_real(local(param))
    if shards is None or not shards.cut_by:
        return Piece(shape)
    numbers = torch.arange(sampled(shape), device="cpu") * spacing(shape)
    found, at = torch.ones_like(numbers, dtype=torch.bool), torch.zeros_like(numbers)
    size = 1  # here, of the dimensions behind
    for dim in reversed(range(len(shape))):
        wanted = numbers % shape[dim]
        numbers = numbers // shape[dim]
        rows = shards.rows(0, dim) if dim < param.ndim else range(shape[dim])
        held, order = torch.tensor(rows, dtype=torch.int64, device="cpu").sort()
        where = torch.searchsorted(held, wanted).clamp_(max=max(0, len(held) - 1))
        found &= (held[where] == wanted) if len(held) else False
        at += (order[where] if len(held) else 0) * size
        size *= len(held)
    among = tuple(shards.mesh.get_group(d) for d in shards.cut_by)
    places = found.nonzero().reshape(-1)
    return Piece(shape, among, places.to(here.device), at[places].to(here.device))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Where the samples of a group's parameters lie, side by side.

    Args:
        params: of the group.
        pieces: of each, what is here.
        spans: of each, its first and last column.
        among: the processes that cut parameters, each kind once; the first is () for whole ones.
        ranges: of each kind, its first and last column.
        degree: of the criterion's sums in the gradient.
        scales: by which a gradient is multiplied, so that a sample's sums are those of the whole.
        native: the same for the CPU's kernel; None where it cannot be taken.
        live: what the group was last seen to keep, so that it need not be looked at again.
    """

    params: list[Tensor]
    pieces: list[Piece]
    spans: list[tuple[int, int]]
    among: list[Processes]
    ranges: list[tuple[int, int]]
    degree: int
    scales: Tensor
    native: look.Sample | None
    live: dict[str, Tensor] = field(default_factory=dict)
    ids: list[int] = field(init=False)
    shapes: list[tuple[int, ...]] = field(init=False)  # of the parameters when it was made
    device: torch.device = field(init=False)  # where the samples are put together

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", list(map(id, self.params)))
        object.__setattr__(self, "shapes", list(map(shape_of, self.params)))
        object.__setattr__(self, "device", self.scales.device)

    @property
    def size(self) -> int:
        """Size of all samples together."""
        return self.ranges[-1][1]

    def number_of(self, param: Tensor) -> int:
        """Number of a parameter in the group."""
        return next(i for i, p in enumerate(self.params) if p is param)

    @property
    def wide(self) -> bool:
        """Whether the square of a gradient may be too large for float64."""
        return any(p.dtype in (torch.float64, torch.complex128) for p in self.params)

    def fits(self, params: list[Tensor], degree: int) -> bool:
        """Whether it is still of these, in the shapes that they had."""
        if list(map(id, params)) != self.ids or degree != self.degree:
            return False
        if not self.has_shapes(params):
            return False
        return not params or params[0].device == self.device

    def has_shapes(self, params: list[Tensor]) -> bool:
        """Whether those with a gradient have their shapes: .data may be replaced, or away."""
        try:
            if [p.shape for p in params] == self.shapes:
                return True
        except RuntimeError:  # one is lazy
            pass
        known = zip(params, self.shapes, strict=True)
        return all(p.grad is None or shape_of(p) == shape for p, shape in known)

    def is_live(self, group: Mapping[str, Any]) -> bool:
        """Whether the group keeps what it was last seen to keep."""
        for key, kept in self.live.items():
            if group.get(key) is not kept:
                return False
        return bool(self.live)


def plan_of(params: list[Tensor], degree: int) -> Plan:
    """For the parameters of a group; those cut by the same processes lie side by side."""
    pieces = [piece_of(p) for p in params]
    among = list(dict.fromkeys([(), *(piece.among for piece in pieces)]))
    spans, ranges, end = [(0, 0)] * len(pieces), [], 0
    for kind in among:
        begin = end
        for i, piece in enumerate(pieces):
            if piece.among == kind:
                spans[i] = (end, end := end + piece.size)
        ranges.append((begin, end))
    stand_for = [(math.prod(p.shape) / max(1, sampled(p.shape))) ** (1.0 / degree) for p in pieces]
    scales = torch.ones(end, dtype=torch.float64, device="cpu")
    for (first, last), scale in zip(spans, stand_for, strict=True):
        scales[first:last] = scale
    on_cpu = all(p.device.type == "cpu" and not p.is_complex() for p in params)
    native = None
    if on_cpu and len(among) == 1:
        native = look.Sample(spans, [spacing(piece.shape) for piece in pieces], stand_for)
    scales = scales.to(home(params))
    return Plan(list(params), pieces, spans, among, ranges, degree, scales, native)


def home(params: Iterable[Tensor]) -> torch.device:
    """Where a group's samples and its gamma live: beside its first parameter."""
    return next((p.device for p in params), torch.device("cpu"))


def present(plan: Plan, kind: int) -> list[int]:
    """The parameters of one kind that have a gradient now."""
    return [
        i
        for i, (param, piece) in enumerate(zip(plan.params, plan.pieces, strict=True))
        if piece.among == plan.among[kind] and param.grad is not None
    ]


def gathered(plan: Plan, chosen: Sequence[int], columns: Tensor | slice, amp: Amp) -> Tensor:
    """The sampled gradients of some of the parameters, in float64, (columns,)."""
    parts = []
    for i in chosen:
        param = plan.params[i]
        grad = as_real(local(like(param.grad, param)))  # type: ignore[arg-type]
        parts.append(plan.pieces[i].of(grad).to(plan.device, non_blocking=True))
    (found,) = amp.unscaled([torch.cat(parts) * plan.scales[columns]])
    return found


def columns_of(plan: Plan, kind: int, chosen: Sequence[int]) -> Tensor | slice:
    """Where the samples of these parameters, all of one kind, stand."""
    first, last = plan.ranges[kind]
    spans = [plan.spans[i] for i in chosen]
    if sum(b - a for a, b in spans) == last - first:
        return slice(first, last)
    return torch.cat([torch.arange(a, b, device=plan.device) for a, b in spans])
