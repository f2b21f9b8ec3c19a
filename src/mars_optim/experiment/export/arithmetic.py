"""The functions of ``optim/`` that one file needs, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch

from ... import gamma_numbers
from ...optim import correction, orthogonalize, rules
from ...optim.gamma import criteria
from ...optimizer_options import MATRIX_RULES, polynomials
from .specialise import constant, specialised

# what a file has: tensors on one process, an lr and a gamma that are numbers, no compiled step
TRUTHS = {
    "shards is None": True,
    "settings.cautious": False,
    "settings.amsgrad": False,
    "isinstance(settings.lr, Tensor)": False,
    "isinstance(step_sizes[0], Tensor)": False,
    "isinstance(gain, Tensor)": False,
    "isinstance(gamma, Tensor)": False,
    "isinstance(t, Tensor)": False,
    "stacked": False,
    "in_place": True,
    # what is clipped is a buffer made like its parameter: dense, and no subclass
    "not c.is_contiguous() and c.numel() < _span(c)": False,
    "type(c) is Tensor": True,
    "a.numel() <= _NORM_CHUNK": False,
    # a scale of 1 changes no bit, so all are multiplied
    "on_cpu": False,
    "not chosen": False,
    # Newton-Schulz of matrices, and of stacks of them that are made here; of an empty one it is
    # an empty one
    "dtype is None": False,
    "x.ndim > 3": False,
    "len(shape) == 2": False,
    # its device is always given
    "device is not None": True,
}
SWAPS = {
    "chosen = list(range(len(cs)))": "",
    "on_cpu = cs[0].device.type == 'cpu' and (not torch.compiler.is_compiling())": "",
    "large, factors = ([cs[i] for i in chosen], [factors[i] for i in chosen])": "",
    "large": "cs",
    "shapes = [x.shape for x in params]": "",
    "shapes[i]": "params[i].shape",
    "directions = _directions(ms, settings)": "",
    "directions": "_directions(ms)",
    "as_matrix(m, stacked=settings.stacked)": "m.flatten(1)",
    "polynomials(coefficients, steps)": "POLYNOMIALS",
    "x = x.to(dtype)": "",  # it is of it already
    "runs(steps, x.dtype)": "RUNS",
    # the two shares are numbers of the caller
    "self.turn": "turn",
    "shares.of_g": "of_g",
    "shares.of_square": "of_square",
}
# a plain group takes the same lines, but is not corrected
FOLDED = {
    "folded(exp_avgs, cs, settings.gamma) if settings.folds else exp_avgs": (
        "exp_avgs if settings.plain else folded(exp_avgs, cs, settings.gamma)"
    ),
}


def arithmetic(settings: dict[str, Any]) -> list[str]:
    """The functions that these settings use, in the order in which they are called."""
    folds = settings["correction"] == "folded"
    truths = {**TRUTHS, "settings.folds": folds, "rule == 'muon'": settings["rule"] == "muon"}
    swaps = {**SWAPS, **(FOLDED if folds else {})}

    def of(*functions: Any, **taken_out: Any) -> list[str]:
        return [specialised(f, truths, swaps=swaps, **taken_out) for f in functions]

    functions = of(correction.folded) if folds else of(correction.corrected_, correction.remember_)
    if settings["clip"] is not None:
        functions += of(correction.norms_of, correction.tensor_norm, correction.dot)
        functions += of(correction.scales_of, correction.clipped, without={"in_place"})
    functions += of(rules.momentum_, rules._decay_)
    functions += of(rules.adamw_, rules.correction, without={"max_exp_avg_sqs"})
    if settings["rule"] == "lion":
        functions += of(rules.lion_, without={"shards", "grads"})
    if settings["rule"] in MATRIX_RULES:
        functions += _orthogonal(of)
    if settings["gamma_schedule"] == "auto":
        functions += of(gamma_numbers.spacing, gamma_numbers.moved, criteria.newest_weight)
        criterion = criteria.NextGradient.look, criteria.NextGradient.turn
        functions += of(*criterion, without={"self", "shares"})
    constants = _constants(settings)
    return ["\n".join(constants), *functions] if constants else functions


def _constants(settings: dict[str, Any]) -> list[str]:
    """The lines that give the constants of these functions their values."""
    made = []
    if settings["gamma_schedule"] == "auto":
        names = ("FIRST", "GAIN", "HIGHEST", "RATE", "SAMPLE")
        made += [constant(gamma_numbers, name) for name in names]
    if settings["clip"] is not None:
        made.append(constant(correction, "_NORM_CHUNK"))
    if settings["rule"] in MATRIX_RULES:
        rows = polynomials(settings["ns_coefficients"], settings["ns_steps"])
        names = ("NS_EPS", "_BATCH", "_GRAM_ASPECT", "_CPU", "BFLOAT16_CPU")
        made += [f"POLYNOMIALS = {_repeated(rows)}", f"RUNS = {_runs(rows)}"]
        made += [constant(orthogonalize, name) for name in names]
    return made


def _orthogonal(of: Callable[..., list[str]]) -> list[str]:
    taken_out = {"shards", "stacked", "rule", "steps", "coefficients", "settings", "grads"}
    made = of(rules.orthogonal_, without={"shards", "stacked", "rule", "grads"})
    made += of(rules.orthogonal_scale, rules._orthogonalised, rules._directions, without=taken_out)
    made += of(orthogonalize.matrix_shape, without={"stacked"})
    made += of(orthogonalize.working_dtype, orthogonalize.prefers_gram, orthogonalize.batches)
    made += of(orthogonalize.newton_schulz, without=taken_out)
    made += of(orthogonalize._on_whole, orthogonalize._on_gram)
    return made + of(orthogonalize._product, orthogonalize._plus)


def _repeated(rows: tuple[Any, ...]) -> str:
    """The polynomials as text, on one line where they are alike."""
    if len(set(rows)) == 1:
        return f"({rows[0]},) * {len(rows)}"
    return "(\n" + "".join(f"    {row},\n" for row in rows) + ")"


def _runs(rows: tuple[Any, ...]) -> str:
    """Steps of the Gram form, which is for float32 alone, before A is made anew from X."""
    ends = list(accumulate(map(len, orthogonalize.runs(rows, torch.float32)), initial=0))
    return "[" + ", ".join(f"POLYNOMIALS[{a}:{b}]" for a, b in pairwise(ends)) + "]"
