"""Tables on the device through which one Triton launch finds the tensors of a whole bucket.

Contents are addresses and sizes alone and so is the key of the cache: a table can be too old to be
found, never wrong. In a steady state a step therefore copies nothing to the device; where the
gradients' addresses alone have changed, it copies theirs, from pinned memory, without waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...types import BUFFERS, State

CHUNK = 4096  # elements of one program; not tuned on a GPU
_KEPT = 256  # tables, of some kilobytes each
_CAPTURES = 8  # for how many CUDA graphs memory is put aside

T = TypeVar("T")

_cache: OrderedDict[Any, Any] = OrderedDict()
_spares: dict[int, list[Tensor]] = {}  # pinned, by length: a capture must not allocate any
_captured: list[Any] = []  # read by CUDA graphs at every replay, so never freed


@dataclass(frozen=True, slots=True)
class Tables:
    """Arguments of the kernels: parameters and states of a bucket.

    Args:
        rows: addresses of the parameters, of each of :data:`BUFFERS` and of the steps, int64,
            (tensors,) each; zeros for a buffer that is not there.
        sizes: in elements, int64, (tensors,).
        first: the first program of each tensor, and the number of all, int64, (tensors + 1,).
            Rows may be longer.
        tensor_of: the tensor of each program, int64, (programs,).
        programs: their number.
        aligned: whether every address but the steps' is a multiple of 16 bytes.
    """

    rows: tuple[Tensor, ...]
    sizes: Tensor
    first: Tensor
    tensor_of: Tensor
    programs: int
    aligned: bool


def tables_of(params: list[Tensor], states: list[State]) -> Tables:
    """The tables of a bucket, most often from the cache."""
    columns = [[x.data_ptr() for x in params]]
    columns += [
        [s[name].data_ptr() for s in states] if name in states[0] else [0] * len(states)
        for name in BUFFERS
    ]
    columns += [[s["step"].data_ptr() for s in states], [x.numel() for x in params]]
    return _cached(_make_tables, tuple(chain.from_iterable(columns)), params[0].device)


def addresses(tensors: list[Tensor]) -> tuple[Tensor, bool]:
    """The tensors' addresses on their device, and whether all are multiples of 16 bytes."""
    return _cached(_make_addresses, tuple(x.data_ptr() for x in tensors), tensors[0].device)


def _make_tables(numbers: tuple[int, ...], device: torch.device) -> Tables:
    count = len(numbers) // (len(BUFFERS) + 3)
    columns = [list(numbers[i : i + count]) for i in range(0, len(numbers), count)]
    aligned = all(address % 16 == 0 for column in columns[:-2] for address in column)
    programs = [-(-size // CHUNK) for size in columns[-1]]
    columns.append([0, *accumulate(programs)])
    # an even length keeps every row at a multiple of 16 bytes, on which Triton specialises
    width = (count + 2) // 2 * 2
    rows = torch.tensor([column + [0] * (width - len(column)) for column in columns], device="cpu")
    tensor_of = torch.repeat_interleave(torch.tensor(programs, device="cpu"))
    rows, tensor_of = _on_device(rows, device), _on_device(tensor_of, device)
    (*found, sizes, first) = rows.unbind()
    return Tables(tuple(found), sizes, first, tensor_of, sum(programs), aligned)


def _make_addresses(numbers: tuple[int, ...], device: torch.device) -> tuple[Tensor, bool]:
    aligned = all(address % 16 == 0 for address in numbers)
    return _on_device(torch.tensor(numbers, device="cpu"), device), aligned


def _cached(
    make: Callable[[tuple[int, ...], torch.device], T],
    numbers: tuple[int, ...],
    device: torch.device,
) -> T:
    """``make(numbers, device)``, made once; kept for good if a CUDA graph is going to read it."""
    key = make, device, numbers
    capturing = _capturing(device)
    if key in _cache:
        _cache.move_to_end(key)
        made: T = _cache[key]
    else:
        made = make(numbers, device)
        if not capturing:  # what is captured is copied when the graph is replayed, not now
            _cache[key] = made
            if len(_cache) > _KEPT:
                _cache.popitem(last=False)
    if capturing:
        _captured.append(made)
    return made


def _on_device(host: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, without waiting for it.

    Raises:
        RuntimeError: if a CUDA graph is captured and no pinned memory was put aside for it.
    """
    if device.type != "cuda":
        return host.to(device)
    if not _capturing(device):
        if not _spares.get(host.numel()):
            spare = torch.empty(
                (_CAPTURES, host.numel()), dtype=torch.int64, device="cpu", pin_memory=True
            )
            _spares[host.numel()] = list(spare.unbind())
        return host.pin_memory().to(device, non_blocking=True)
    spares = _spares.get(host.numel())
    if not spares:
        raise RuntimeError(
            "a CUDA graph needs one eager step before a step is captured, and one more, with "
            f"new gradients, after every {_CAPTURES} captures: take that step, or give "
            "fused=False"
        )
    pinned = spares.pop().view_as(host).copy_(host)
    _captured.append(pinned)  # read at every replay
    return torch.empty_like(host, device=device).copy_(pinned, non_blocking=True)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
