"""Work on a bucket before a backend gets it, and around its step.

:func:`.dispatch.prepare` does them, always in the order in which they stand here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..distributed.sharded import Shards, as_real, cut_like, is_sharded, like, local
from ..types import BUFFERS
from . import layout
from .amp import Amp
from .base import Bucket

Step = Callable[[Bucket], None]


def of_shards(bucket: Bucket) -> Bucket:
    """DTensors (all of one mesh and placement) as this process's shards, in the same memory."""
    shards = Shards.of(bucket.params)
    if shards is None:
        return bucket
    grads = [local(like(g, p)) for g, p in zip(bucket.grads, bucket.params, strict=True)]
    states = [{key: local(value) for key, value in s.items()} for s in bucket.states]
    params = [local(p) for p in bucket.params]
    return replace(bucket, params=params, grads=grads, states=states, shards=shards)


def of_reals(bucket: Bucket) -> Bucket:
    """Complex tensors as pairs of real ones that share their memory.

    Raises:
        MisfitError: if a gradient or a state does not fit its parameter.
    """
    if not bucket.params[0].is_complex():
        return bucket
    layout.lay_out(bucket)
    return replace(
        bucket,
        params=[as_real(x) for x in bucket.params],
        grads=[as_real(g) for g in bucket.grads],
        states=[{key: as_real(value) for key, value in s.items()} for s in bucket.states],
    )


def counted_beside(bucket: Bucket, given: Bucket) -> None:
    """Move the step counters to where kernels on a device read them: beside the parameters.

    Args:
        bucket: as the kernel takes it.
        given: the same as the optimizer keeps it.
    """
    for x, state, own in zip(bucket.params, given.states, bucket.states, strict=True):
        if state["step"].device != x.device:
            state["step"] = own["step"] = state["step"].to(x.device)


def unscaled(bucket: Bucket) -> Bucket:
    """Gradients divided by the gradient scaler's scale, as new tensors."""
    if bucket.amp.grad_scale is None:
        return bucket
    grads, amp = bucket.amp.unscaled(bucket.grads), Amp(found_inf=bucket.amp.found_inf)
    return replace(bucket, grads=grads, amp=amp)


def of_blocks(bucket: Bucket) -> tuple[Bucket, Callable[[], None]]:
    """The blocks of each tensor (``split``) as tensors of their own, in the same memory.

    So each has its own clip, sign mask, orthogonal factor and scale, as separate parameters have.

    Returns:
        The bucket of blocks, and what writes back those whose rows are not side by side: copies.
    """
    split, stacked, shards = bucket.settings.split, bucket.settings.stacked, bucket.shards
    assert split is not None
    params, grads, states, cuts = [], [], [], []
    back: list[Callable[[], Tensor]] = []
    rows = zip(bucket.params, bucket.grads, bucket.states, strict=True)
    for i, (x, g, state) in enumerate(rows):
        shape = x.shape if shards is None else shards.shapes[i]
        for j, block in enumerate(split.blocks(shape, stacked=stacked)):
            here = range(x.shape[block.dim]) if shards is None else shards.rows(i, block.dim)
            where = block.where(here)
            cuts.append((i, block, where))
            params.append(block.of(x, where))
            grads.append(block.of(g, where))
            step = state["step"] if j == 0 else state["step"].clone()  # it is counted once
            kept = {k: v for k, v in state.items() if k in BUFFERS}
            states.append({"step": step, **{k: block.of(v, where) for k, v in kept.items()}})
            if not isinstance(where, tuple):
                copies = ((x, params[-1]), *((v, states[-1][k]) for k, v in kept.items()))
                back += [partial(block.put, whole, where, part) for whole, part in copies]
    if shards is not None:
        shards = shards.of_blocks(cuts)

    def put_back() -> None:
        for write in back:
            write()

    blocks = replace(bucket, params=params, grads=grads, states=states, shards=shards)
    return blocks, put_back


def in_blocks(bucket: Bucket) -> Bucket:
    """The bucket as the norm over all tensors sees it: separate parameters are added up apart."""
    split = bucket.settings.split is not None and bucket.shares_norm
    return of_blocks(bucket)[0] if split else bucket


def on_blocks(step: Step, bucket: Bucket) -> None:
    """``step`` on the blocks of each tensor, where it has several."""
    if bucket.settings.split is None:
        step(bucket)
        return
    blocks, put_back = of_blocks(bucket)
    step(blocks)
    put_back()


# mixed_dtype.step stands here: compute in the widest dtype, store in each own


def on_whole(step: Step, given: Bucket, bucket: Bucket) -> None:
    """``step`` on the whole of sharded tensors, every process alike: slow, simple, an oracle.

    Args:
        step: of whole tensors.
        given: the DTensors.
        bucket: their shards.
    """
    bucket.observe()

    def whole(value: Any) -> Any:
        return value.full_tensor() if is_sharded(value) else value

    params, states = given.params, given.states
    grads = [whole(like(g, p)) for g, p in zip(given.grads, params, strict=True)]
    full = [whole(param) for param in params]
    full_states = [{key: whole(value) for key, value in state.items()} for state in states]
    all_of_it = replace(given, params=full, grads=grads, states=full_states, observer=None)
    on_blocks(step, of_reals(unscaled(all_of_it)))
    for param, x, state, full_state in zip(params, full, states, full_states, strict=True):
        for target, source in [(param, x), *((state[k], full_state[k]) for k in state)]:
            if is_sharded(target):
                target.copy_(cut_like(source, target))


def unless(found_inf: Tensor, step: Step, bucket: Bucket) -> None:
    """``step``, undone on the device if ``found_inf``: no waiting, at the price of copies."""
    held = [*bucket.params, *(value for state in bucket.states for value in state.values())]
    before = [value.clone() for value in held]
    step(bucket)
    for value, old in zip(held, before, strict=True):
        found = found_inf.reshape(()).to(value.device, non_blocking=True).bool()
        torch.where(found, old, value, out=value)
