"""``scale_by_mars``: from gradients to directions, as one optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import tree

from ..optimizer_options import MATRIX_RULES, Clip, ClipOver, Coefficients, Correction, Rule
from .blocks import Splits, check_rule, splits_of
from .gamma import GammaState, begin, observe
from .options import Axis, Dtype, Gamma, Options, Scalar, like, resolved, wide
from .rules import average, clipped, corrected, directions


class MarsState(NamedTuple):
    """The state of :func:`scale_by_mars`; None for what the options have no use for.

    Args:
        count: steps taken, int32, 0-d.
        mu: m_t, or folded the average of the plain gradient; like the parameters.
        nu: second moment of c_t, for rule "adamw".
        nu_max: its running maximum, for ``amsgrad``.
        last_grad: g_{t-1}, for ``correction="approx"``.
        gamma: of ``gamma="auto"``; ``state.gamma.now`` is the one in force.
    """

    count: jax.Array  # type: ignore[assignment] # the name that optax has
    mu: optax.Updates
    nu: optax.Updates | None
    nu_max: optax.Updates | None
    last_grad: optax.Updates | None
    gamma: GammaState | None


def scale_by_mars(
    b1: Scalar = 0.95,
    b2: Scalar = 0.99,
    eps: Scalar = 1e-8,
    *,
    rule: Rule = "adamw",
    gamma: Gamma = 0.025,
    correction: Correction | None = None,
    clip: Clip | jax.Array = "auto",
    clip_over: ClipOver = "tensor",
    amsgrad: bool = False,
    cautious: bool = False,
    ns_steps: int | None = None,
    ns_coefficients: str | Coefficients | tuple[Coefficients, ...] = "simple",
    ns_dtype: Dtype = None,
    output_axis: Axis = "last",
    stacked: bool = False,
    split: Splits | None = None,
    state_dtype: Dtype = None,
    last_grad_dtype: Dtype = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rescale updates by MARS (arXiv 2411.10438): a variance-reduced gradient, and a rule.

    .. math::
        c_t = g_t + \gamma \tfrac{\beta_1}{1-\beta_1} (g_t - g_{t-1}), \qquad
        \tilde c_t = c_t \min(1, \text{clip} / \|c_t\|_2), \qquad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) \tilde c_t

    Chain it with ``optax.add_decayed_weights`` and ``optax.scale_by_learning_rate``, or take
    :func:`.mars`, which also tells vectors from matrices. Options mean what they mean in
    :class:`mars_optim.MARS`. Every number may be traced, as under ``optax.inject_hyperparams``.

    Args:
        b1: decay of the first moment, in [0, 1) (default: 0.95).
        b2: of the second, of rule "adamw" alone (default: 0.99).
        eps: added to the root of the second moment (default: 1e-8).
        rule: "adamw", "lion", "shampoo" or "muon"; the last two take arrays of two dimensions and
            more (default: "adamw").
        gamma: scale of the correction, a number of at least 0, a schedule of the count of steps
            from 0, or "auto", which chooses it by the next gradient from 0.1 on
            (default: 0.025). A number 0 switches the correction off.
        correction: "approx", "folded" or "exact" (default: None, "folded" for ``gamma="auto"``
            and "approx" elsewhere). "exact" needs ``update(..., previous_grads=...)``: the
            gradients of this batch at the last step's parameters, of which those of the first
            step do not count.
        clip: largest norm of c_t, or None (default: "auto", which is 1.0, and None for "folded").
        clip_over: the norm of each "tensor", or "global" (default: "tensor").
        amsgrad: divide by the running maximum of the second moment; rule "adamw" alone
            (default: False).
        cautious: step only where the direction has the sign of g_t, scaled up by the share of
            such elements, of at least 1e-3 (arXiv 2411.16085; default: False).
        ns_steps: Newton-Schulz iterations, 1 to 99 (default: None, which is 5).
        ns_coefficients: the name of a set or its numbers (default: "simple").
        ns_dtype: to iterate in (default: None: float32, float64 for float64 arrays).
        output_axis: which axis of a weight is the layer's output: "last" as in Flax and Haiku,
            "first" as in Equinox and PyTorch (default: "last").
        stacked: leading dimensions of arrays of more than two are a batch of matrices, as of
            scanned layers (default: False, they are flattened into the inputs).
        split: which arrays hold several matrices, as a fused QKV: ``{"qkv/kernel": 3}`` by
            patterns of the path, or a function of the path. ``3`` is three equal blocks of
            outputs, ``(64, 16, 16)`` blocks of so many, ``((64, 16, 16), 1)`` of inputs,
            ``((8, 8, 8), 0, 4)`` blocks that follow each other in four rounds. Each block has a
            clip, an orthogonal factor, a scale and a cautious mask of its own (default: None).
        state_dtype: of moments and kept gradient (default: None, the parameters' own). Whatever
            it is, a step is computed in float32 at the least.
        last_grad_dtype: of the kept gradient alone (default: None, ``state_dtype``).

    Returns:
        A transformation whose updates point uphill, as optax has it.

    Raises:
        ValueError: for an option out of range; in ``init`` for an array that the rule cannot take,
            a pattern of ``split`` that matches nothing, or a split that does not fit; in ``update``
            for a state of other options, or for gradients of other shapes.
    """
    check_rule(split, rule)
    options = resolved(
        b1=b1,
        b2=b2,
        eps=eps,
        amsgrad=amsgrad,
        cautious=cautious,
        rule=rule,
        gamma=gamma,
        correction=correction,
        clip=clip,
        clip_over=clip_over,
        ns_steps=ns_steps,
        ns_coefficients=ns_coefficients,
        ns_dtype=ns_dtype,
        output_axis=output_axis,
        stacked=stacked,
        split=split,
        state_dtype=state_dtype,
        last_grad_dtype=last_grad_dtype or state_dtype,
    )

    def init_fn(params: optax.Params) -> MarsState:
        leaves = tree.leaves(params)
        for leaf in leaves:
            _check_leaf(leaf, options)
        splits_of(params, split, output_axis, stacked=stacked)
        return MarsState(
            count=jnp.zeros((), jnp.int32),
            mu=_zeros(params, options.state_dtype),
            nu=_zeros(params, options.state_dtype) if rule == "adamw" else None,
            nu_max=_zeros(params, options.state_dtype) if amsgrad else None,
            last_grad=_zeros(params, options.last_grad_dtype) if options.keeps_grad else None,
            gamma=begin(leaves, cast(Scalar, options.gamma)) if options.chooses else None,
        )

    def update_fn(
        updates: optax.Updates,
        state: MarsState,
        params: optax.Params | None = None,
        *,
        previous_grads: optax.Updates | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MarsState]:
        del params, extra_args
        if options.correction == "exact" and options.corrects and previous_grads is None:
            raise ValueError(
                "correction='exact' needs this batch's gradients at the last step's parameters: "
                "update(grads, state, params, previous_grads=...)"
            )
        _check_state(state, options, empty=not tree.leaves(updates))
        return _step(updates, state, previous_grads, options)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _step(
    updates: optax.Updates, state: MarsState, previous: optax.Updates | None, options: Options
) -> tuple[optax.Updates, MarsState]:
    """The directions of one step, and the state after it."""
    leaves: tuple[list[jax.Array], Any] = tree.flatten(updates)
    grads, structure = leaves
    count = cast(jax.Array, optax.safe_increment(state.count))
    mus = structure.flatten_up_to(state.mu)
    _check_shapes("the state of", mus, updates)
    gs = [
        g.astype(wide(jnp.promote_types(g.dtype, mu.dtype)))
        for g, mu in zip(grads, mus, strict=True)
    ]
    gamma = _gamma(state, options)
    splits = splits_of(updates, options.split, options.output_axis, stacked=options.stacked)

    # c_t, clipped
    lasts = _last_grads(structure, grads, state, previous, options)
    cs = clipped(corrected(gs, lasts, gamma, options), splits, options)

    # m_t = beta1 m_{t-1} + (1 - beta1) c_t; folded: (1 - gamma) EMA(g)_t + gamma g_t
    mus = [average(mu, c, options.b1) for mu, c in zip(mus, cs, strict=True)]
    ms = mus
    if options.folds:
        ms = [mu + like(gamma, mu) * (c - mu) for mu, c in zip(mus, cs, strict=True)]
    nus, highest = _second_moments(structure, state, cs, options)
    made = directions(ms, highest or nus, gs, splits, count, options)

    chosen = state.gamma
    if chosen is not None:
        chosen = observe(chosen, grads, count, options.b1, options.b2)
    mu, nu = _stored(structure, mus, state.mu), _stored(structure, nus, state.nu)
    after = MarsState(
        count=count,
        mu=mu,
        nu=nu,
        nu_max=_stored(structure, highest, state.nu_max),
        last_grad=_kept(updates, state, [mu] if nu is None else [mu, nu]),
        gamma=chosen,
    )
    return _stored(structure, made, updates), after


def _second_moments(
    structure: Any, state: MarsState, cs: list[jax.Array], options: Options
) -> tuple[list[jax.Array] | None, list[jax.Array] | None]:
    """v_t = beta2 v_{t-1} + (1 - beta2) c_t^2, and its running maximum; None where not kept."""
    if options.rule != "adamw":
        return None, None
    before = structure.flatten_up_to(state.nu)
    nus = [average(nu, c * c, options.b2) for nu, c in zip(before, cs, strict=True)]
    if not options.amsgrad:
        return nus, None
    so_far = structure.flatten_up_to(state.nu_max)
    return nus, [jnp.maximum(v, old) for v, old in zip(nus, so_far, strict=True)]


def _gamma(state: MarsState, options: Options) -> Scalar:
    """gamma_t of the step that is due."""
    if state.gamma is not None:
        return state.gamma.now
    return cast(Scalar, options.gamma(state.count) if callable(options.gamma) else options.gamma)


def _last_grads(
    structure: Any,
    grads: list[jax.Array],
    state: MarsState,
    previous: optax.Updates | None,
    options: Options,
) -> list[jax.Array] | None:
    """The gradient that is subtracted: g_{t-1}, this batch's at x_{t-1}, or nothing."""
    if options.keeps_grad:
        return cast(list[jax.Array], structure.flatten_up_to(state.last_grad))
    if options.correction != "exact" or not options.corrects:
        return None
    # there is no point before the first: c_1 = (1 + k) g_1, as in the approximate form
    begun = state.count > 0
    try:
        earlier = structure.flatten_up_to(previous)
    except (ValueError, TypeError) as error:
        raise ValueError(f"previous_grads must be a tree as grads is: {error}") from None
    _check_shapes("previous_grads of", earlier, structure.unflatten(grads))
    return [jnp.where(begun, p, 0).astype(p.dtype) for p in earlier]


def _stored(structure: Any, leaves: list[jax.Array] | None, kept: Any) -> Any:
    """The leaves as a tree, each in the dtype of what they take the place of; None stays None."""
    if kept is None or leaves is None:
        return None
    pairs = zip(leaves, structure.flatten_up_to(kept), strict=True)
    return structure.unflatten([new.astype(old.dtype) for new, old in pairs])


def _kept(grads: optax.Updates, state: MarsState, moments: list[Any]) -> optax.Updates | None:
    """g_t in the place of g_{t-1}, which the moments read before.

    No count is below 0, but XLA does not know it. So it writes g_t after the moments, where
    g_{t-1} stood; else it would copy every g_{t-1} aside first.
    """
    if state.last_grad is None:
        return None

    def written(g: jax.Array, last: jax.Array, *after: jax.Array) -> jax.Array:
        waited_for = sum(after, jnp.zeros((), last.dtype))
        return jnp.where(state.count < 0, waited_for.astype(last.dtype), g.astype(last.dtype))

    return cast(optax.Updates, tree.map(written, grads, state.last_grad, *moments))


def _zeros(params: optax.Params, dtype: Dtype) -> optax.Updates:
    return cast(optax.Updates, tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params))


def _check_state(state: MarsState, options: Options, *, empty: bool) -> None:
    """Raise ValueError for a state without what these options need, or with another gamma."""
    needed = dict(nu=options.rule == "adamw", nu_max=options.amsgrad, last_grad=options.keeps_grad)
    wrong = [
        f"without {name}"
        for name, need in needed.items()
        if need and not empty and getattr(state, name) is None
    ]
    if options.chooses != (state.gamma is not None):
        wrong.append(f"{'without' if options.chooses else 'with'} the gamma of gamma='auto'")
    if wrong:
        raise ValueError(
            f"the state is of other options ({', '.join(wrong)}): give the options that it was "
            "made with, or make a new one by init(params)"
        )


def _check_shapes(what: str, leaves: list[jax.Array], grads: optax.Updates) -> None:
    """Raise ValueError for an array whose shape is not its gradient's, which would broadcast."""
    if list(map(jnp.shape, tree.leaves(grads))) == list(map(jnp.shape, leaves)):
        return
    for (path, g), leaf in zip(tree.leaves_with_path(grads), leaves, strict=True):
        if jnp.shape(g) != jnp.shape(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(
                f"{what} {name!r} has shape {jnp.shape(leaf)}, but its gradient has shape "
                f"{jnp.shape(g)}: both must be the parameter's"
            )


def _check_leaf(leaf: jax.Array, options: Options) -> None:
    """Raise ValueError for an array that the rule cannot take."""
    dtype, ndim = jnp.result_type(leaf), jnp.ndim(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"MARS takes arrays of floating dtypes, not of {dtype}: mask the others")
    if options.rule in MATRIX_RULES and ndim < 2:
        raise ValueError(
            f"rule={options.rule!r} does not take {ndim}-D arrays: use mars(), which gives them "
            "AdamW, or optax.masked"
        )
