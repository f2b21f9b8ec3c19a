"""gamma chosen by what the steps show: sums are added up, travel together, and move it.

Where a group's counter of steps can be read, Python knows in which step sums are due. In a graph
and in a compiled step it does not: there the same arithmetic is done in every step, and its result
taken where it is due. Nothing waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...gamma_numbers import EVERY, FIRST, HIGHEST, RATE, moved
from ..backends.amp import Amp
from ..backends.cpu import look
from ..distributed.sums import sum_over
from .criteria import NextGradient, Number, Shares, criterion_of, newest_weight
from .kept import MEMORY, NOW, PROBES, SILENT, STEPS, SUMS, Group, Plans, is_chosen
from .sample import Plan, columns_of, gathered, present

Seen = tuple[int, Tensor]  # of what kind tensors are, and what a step adds to its row


def step_due(group: Group) -> Number:
    """The number of the step that is due, from 1; a tensor where reading it would wait."""
    steps: Tensor = group[STEPS]
    if steps.device.type == "cpu" and not torch.compiler.is_compiling():
        return int(steps) + 1
    return steps + 1.0


def observe(
    groups: Sequence[Group], plans: Plans, amp: Amp, arrived: Mapping[int, list[Seen]]
) -> None:
    """Look at the gradients of the step that has been taken; where it is due, move gamma.

    Args:
        groups: of an optimizer, each :func:`~.kept.ready`.
        plans: of the groups.
        amp: by what the gradients are still to be divided, and whether the step was skipped.
        arrived: by number of the group, what was seen of gradients that are gone.
    """
    due: list[tuple[Group, Plan, Number]] = []
    counters: list[Tensor] = []
    for i, group in enumerate(groups):
        if not is_chosen(group):
            continue
        plan, seen = plans[i], list(arrived.get(i, ()))
        counted = 0 if seen else look_natively(group, plan, amp)
        step: Number = counted or step_due(group)
        if not counted:
            for kind in range(len(plan.among)):
                if chosen := present(plan, kind):
                    seen.append((kind, look_at(group, plan, kind, chosen, amp)))
            _write(group[SUMS], seen, step)
            counters.append(group[STEPS])
        if isinstance(step, Tensor) or step % EVERY == 0:
            due.append((group, plan, step))
    if counters:
        torch._foreach_add_(counters, 1.0)
    if due:
        _settle(due)


def _settle(due: Sequence[tuple[Group, Plan, Number]]) -> None:
    """Move the gammas of groups by the sums of their last EVERY steps, which travel for it."""
    cut = [(group[SUMS].clone(), plan) for group, plan, _ in due if len(plan.among) > 1]
    sum_over([part for table, plan in cut for part in zip(table, plan.among, strict=True)])
    whole = iter(cut)
    for group, plan, step in due:
        rows = next(whole)[0].sum(0) if len(plan.among) > 1 else group[SUMS][0]
        numbers = rows.device.type == "cpu" and not isinstance(step, Tensor)
        if numbers and isinstance(criterion_of(group), NextGradient):
            _choose_by_numbers(group, rows.tolist(), int(step))
        else:
            _choose(group, rows, step)


def look_natively(group: Group, plan: Plan, amp: Amp) -> int:
    """Look at all gradients by one call of the CPU's kernel, which writes the row and counts.

    Returns:
        The number of the step, from 1; 0 if the kernel cannot take it, and then nothing is done.
    """
    if plan.native is None or torch.compiler.is_compiling():
        return 0
    if type(criterion_of(group)) is not NextGradient:
        return 0
    if amp.grad_scale is not None or amp.found_inf is not None:
        return 0
    kept = group[PROBES], group[SUMS], group[STEPS]
    return look.look(plan.native, plan.params, group["betas"], *kept)


def look_at(group: Group, plan: Plan, kind: int, chosen: Sequence[int], amp: Amp) -> Tensor:
    """Add the gradients of some parameters to a row; update what is kept of them.

    Elements whose gradient is inf or NaN leave nothing, and what an earlier one left is 0.
    """
    columns, step = columns_of(plan, kind, chosen), step_due(group)
    g, kept = gathered(plan, chosen, columns, amp), group[PROBES][:, columns]
    shares = Shares(*(_scalar(newest_weight(b, step), plan.device) for b in group["betas"]))
    sums, new = criterion_of(group).look(g, kept, shares)
    seen = torch.stack([*sums, sums[0].new_ones(())])
    found_inf = amp.on_device
    # a CPU can be asked for nothing; float32 has no square that is too large
    known = g.device.type == "cpu" and not torch.compiler.is_compiling() and not plan.wide
    if found_inf is not None or not known or not seen.sum().isfinite():
        fine = new.isfinite().all(0)
        if found_inf is not None:
            skipped = found_inf.to(g.device, non_blocking=True).reshape(()) != 0
            fine &= ~skipped
            seen[:-1] = torch.where(skipped, torch.nan, seen[:-1])
        new = torch.where(fine, new, kept.nan_to_num(0.0, 0.0, 0.0))
    group[PROBES][:, columns] = new
    return seen


def _scalar(value: Number, device: torch.device) -> Tensor:
    """In float64, on the device: one on the CPU would wait for a copy in each operation."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return torch.full((), value, dtype=torch.float64, device=device)


def _write(table: Tensor, seen: Sequence[Seen], step: Number) -> None:
    """The row of a step, of each kind of tensors."""
    rows = torch.zeros_like(table[:, 0])
    for kind, row in seen:
        rows[kind] += row
    if isinstance(step, Tensor):
        step = step.to(table.device, non_blocking=True) - 1.0
        here = torch.arange(EVERY, device=table.device) == step % EVERY
        table.copy_(torch.where(here[None, :, None], rows[:, None], table))
    else:
        table[:, int(step - 1) % EVERY] = rows


def _choose(group: Group, rows: Tensor, step: Number) -> None:
    """``gamma_now`` from the whole's sums of EVERY steps: by at most RATE, in [0, HIGHEST].

    Args:
        group: changed.
        rows: (EVERY, sums and whether there were gradients).
        step: the last of them.
    """
    criterion, now = criterion_of(group), group[NOW]
    if isinstance(step, Tensor):
        step = step.to(rows.device, non_blocking=True)
    beta = 1.0 - newest_weight(group["betas"][0], step)
    steps = torch.arange(1 - EVERY, 1, dtype=torch.float64, device=rows.device) + step
    seen, told = _told(rows)
    memory = criterion.fold(group[MEMORY], rows[:, :-1], told, steps)
    wanted, after = criterion.settle(now, memory, beta)
    move = (wanted - now).clamp(-RATE, RATE)
    due, first = step % EVERY == 0, step >= FIRST
    _take(group[SILENT], _silence(group[SILENT], rows, steps, seen, told), due)
    _take(group[MEMORY], memory, due)  # before the first setting it is only added to
    _take(group[MEMORY], after, due & first)
    _take(now, (now + move).clamp(0.0, HIGHEST), due & first)


def _choose_by_numbers(group: Group, rows: Sequence[Sequence[float]], step: int) -> None:
    """The same by the next gradient, in numbers: some fifty small tensors cost more on a CPU.

    As :class:`~.criteria.NextGradient` has it.
    """
    agreement, silent, told = float(group[MEMORY]), 0, False
    for number, (of_step, size, seen) in enumerate(rows, step - EVERY + 1):
        if seen and math.isfinite(of_step) and 0.0 < size < math.inf:
            agreement += of_step / size
            told = True
        elif seen and number > 2:
            silent += 1
    if step >= FIRST:
        group[NOW].fill_(moved(float(group[NOW]), agreement))
        agreement = 0.0
    group[MEMORY].fill_(agreement)
    if silent or (told and group[SILENT][0]):
        in_a_row, skipped = group[SILENT].tolist()
        after = [0.0 if told else in_a_row + silent, skipped + silent]
        group[SILENT].copy_(torch.tensor(after, dtype=torch.float64, device="cpu"))


def _take(target: Tensor, value: Tensor, when: bool | Tensor) -> None:
    """``target <- value``, where it is due."""
    if isinstance(when, Tensor):
        target.copy_(torch.where(when, value, target))
    elif when:
        target.copy_(value)


def _told(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which steps saw gradients, and which of them have sums that are finite."""
    seen = rows[:, -1] > 0
    return seen, seen & rows.isfinite().all(1)


def _silence(before: Tensor, rows: Tensor, steps: Tensor, seen: Tensor, told: Tensor) -> Tensor:
    """How many steps told nothing, in a row until now and in all, after more of them.

    Their sums are not finite, or all zero; the first two steps cannot tell anything. Where some of
    them told something, those in a row begin again with the next.
    """
    told = told & rows[:, :-1].any(1)
    after = before + (seen & ~told & (steps > 2)).sum()
    return torch.stack([torch.where(told.any(), 0.0, after[0]), after[1]])


def silence(group: Group) -> str | None:
    """In words, that a schedule has stopped, skipped steps or seen nothing; waits for the device.

    Of parameters that are cut it counts up to the last time that their sums travelled.
    """
    if not isinstance(group.get(SILENT), Tensor) or not is_chosen(group):
        return None
    steps, counted, table = int(group[STEPS]), group[SILENT], group[SUMS]
    left = steps % EVERY
    if left and len(table) == 1:
        numbers = torch.arange(steps - left + 1, steps + 1, device=table.device)
        counted = _silence(counted, table[0, :left], numbers, *_told(table[0, :left]))
    in_a_row, skipped = counted.tolist()
    name = f"gamma_schedule={group['gamma_schedule']!r}"
    if steps and not table[..., -1].any():
        return f"{name} has seen no gradient in the last {min(steps, EVERY)} of {steps} steps"
    why = "their gradients were zero, inf or NaN"
    if in_a_row >= EVERY:
        return (
            f"{name} has stopped: the last {in_a_row:.0f} of {steps} steps gave no reading ({why})"
        )
    if skipped:
        return f"{name} has skipped {skipped:.0f} of {steps} steps ({why})"
    return None
