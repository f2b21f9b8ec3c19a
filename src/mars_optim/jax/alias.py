"""``mars``: the whole optimizer, in place of ``optax.adamw``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax import tree

from ..optimizer_options import MATRIX_RULES, Clip, ClipOver, Coefficients, Correction, Rule
from .blocks import Splits
from .options import Axis, Dtype, Gamma, Scalar, Schedule, check_beta, check_flag, check_number
from .transform import scale_by_mars

Rate = Scalar | Schedule
Mask = Any  # a tree of bools, or a function of the parameters that makes one


def mars(
    learning_rate: Rate,
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.01,
    mask: Mask | None = None,
    *,
    rule: Rule = "adamw",
    gamma: Gamma = 0.025,
    correction: Correction | None = None,
    clip: Clip | jax.Array = "auto",
    clip_over: ClipOver = "tensor",
    amsgrad: bool = False,
    cautious: bool = False,
    optimize_1d: bool = False,
    plain: Mask | None = None,
    learning_rate_1d: Rate | None = None,
    b1_1d: Scalar = 0.9,
    b2_1d: Scalar = 0.95,
    weight_decay_1d: Scalar | None = None,
    ns_steps: int | None = None,
    ns_coefficients: str | Coefficients | tuple[Coefficients, ...] = "simple",
    ns_dtype: Dtype = None,
    output_axis: Axis = "last",
    stacked: bool = False,
    split: Splits | None = None,
    state_dtype: Dtype = None,
    last_grad_dtype: Dtype = None,
) -> optax.GradientTransformationExtraArgs:
    r"""MARS with decoupled decay: x <- x - lr (direction(m_t) + weight_decay x).

    As in the published code, arrays of fewer than two dimensions get plain AdamW. With
    ``correction="exact"`` call ``update(grads, state, params, previous_grads=...)``.

    Args:
        learning_rate: a number of at least 0, or a schedule.
        b1: see :func:`.scale_by_mars`, as ``b2``, ``eps``, ``rule``, ``gamma``, ``correction``,
            ``clip``, ``clip_over``, ``ns_*``, ``output_axis``, ``stacked``, ``split``,
            ``state_dtype`` and ``last_grad_dtype``. The clip and ``gamma="auto"`` look at what
            gets the rule.
        b2: likewise.
        eps: likewise, of plain AdamW too.
        weight_decay: of all arrays (default: 0.01).
        mask: which of them are decayed, as in ``optax.adamw`` (default: None, all).
        rule: see ``b1``; so are the options up to ``clip_over``.
        gamma: likewise.
        correction: likewise.
        clip: likewise.
        clip_over: likewise.
        amsgrad: likewise, of plain AdamW too.
        cautious: likewise, of plain AdamW too.
        optimize_1d: give vectors the rule and the correction too; rules "shampoo" and "muon" give
            them MARS-AdamW (default: False).
        plain: which arrays get plain AdamW besides, such as ``by_name("embed", "lm_head")``;
            rules "shampoo" and "muon" do not suit embeddings and heads (default: None, no others).
        learning_rate_1d: of plain AdamW (default: None, ``learning_rate``).
        b1_1d: of plain AdamW (default: 0.9).
        b2_1d: likewise (default: 0.95).
        weight_decay_1d: likewise (default: None, ``weight_decay``).
        ns_steps: see ``b1``; so are the options that follow.
        ns_coefficients: likewise.
        ns_dtype: likewise.
        output_axis: likewise.
        stacked: likewise.
        split: likewise.
        state_dtype: likewise, of plain AdamW too.
        last_grad_dtype: likewise.

    Raises:
        ValueError: for an option out of range.
    """
    check_number("learning_rate", learning_rate, "lr")
    check_number("weight_decay", weight_decay, "weight_decay")
    check_number("learning_rate_1d", learning_rate_1d, "lr_1d")
    check_number("weight_decay_1d", weight_decay_1d, "weight_decay_1d")
    check_beta("b1_1d", b1_1d)
    check_beta("b2_1d", b2_1d)
    check_flag("optimize_1d", optimize_1d)
    if optimize_1d and rule in MATRIX_RULES and (clip_over == "global" or isinstance(gamma, str)):
        what = "clip_over='global'" if clip_over == "global" else "gamma='auto'"
        raise ValueError(
            f"{what} cannot be combined with optimize_1d=True and rule={rule!r}, where two "
            "separate transformations treat matrices and vectors: set optimize_1d=False"
        )

    def of_rule(chosen: Rule) -> optax.GradientTransformationExtraArgs:
        return scale_by_mars(
            b1,
            b2,
            eps,
            rule=chosen,
            gamma=gamma,
            correction=correction,
            clip=clip,
            clip_over=clip_over,
            amsgrad=amsgrad,
            cautious=cautious,
            ns_steps=ns_steps,
            ns_coefficients=ns_coefficients,
            ns_dtype=ns_dtype,
            output_axis=output_axis,
            stacked=stacked,
            split=split if chosen == rule else None,
            state_dtype=state_dtype,
            last_grad_dtype=last_grad_dtype,
        )

    adamw = scale_by_mars(
        b1_1d,
        b2_1d,
        eps,
        gamma=0.0,
        clip=None,
        amsgrad=amsgrad,
        cautious=cautious,
        state_dtype=state_dtype,
    )
    rates = learning_rate, learning_rate if learning_rate_1d is None else learning_rate_1d
    decays = weight_decay, weight_decay if weight_decay_1d is None else weight_decay_1d
    transforms = {
        "rule": _whole(of_rule(rule), decays[0], mask, rates[0]),
        "plain": _whole(adamw, decays[1], mask, rates[1]),
    }
    if optimize_1d and rule in MATRIX_RULES:
        transforms["vector"] = _whole(of_rule("adamw"), decays[0], mask, rates[0])

    def labels(params: optax.Params) -> Any:
        masked = plain(params) if callable(plain) else plain
        if masked is None:
            masked = tree.map(lambda _: False, params)

        def label(leaf: jax.Array, is_plain: bool) -> str:
            if is_plain or (jnp.ndim(leaf) < 2 and not optimize_1d):
                return "plain"
            return "vector" if jnp.ndim(leaf) < 2 and "vector" in transforms else "rule"

        return tree.map(label, params, masked)

    return optax.partition(transforms, labels, mask_compatible_extra_args=True)


def by_name(*patterns: str) -> Callable[[optax.Params], Any]:
    """A mask of the arrays in whose path, such as "layers/0/embed/kernel", a pattern is found.

    Args:
        *patterns: regular expressions.
    """
    compiled = [re.compile(pattern) for pattern in patterns]

    def mask(params: optax.Params) -> Any:
        def matches(path: Any, _: Any) -> bool:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return any(pattern.search(name) for pattern in compiled)

        return tree.map_with_path(matches, params)

    return mask


def _whole(
    rescale: optax.GradientTransformation, weight_decay: Scalar, mask: Mask | None, rate: Rate
) -> optax.GradientTransformationExtraArgs:
    decay = optax.add_decayed_weights(cast(Any, weight_decay), mask)
    return optax.chain(rescale, decay, optax.scale_by_learning_rate(cast(Any, rate)))
