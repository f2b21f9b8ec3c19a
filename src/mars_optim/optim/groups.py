"""Which parameter gets which rule, and a table that shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from .describe import EMBEDDINGS, HEADS, describe
from .settings import (
    MATRIX_RULES,
    RULES,
    Correction,
    Rule,
    check_choice,
    resolve_clip,
    resolve_correction,
    resolve_gamma,
)

Kind = Literal["matrix", "embedding", "head", "vector"]

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass
class _Claim:
    """One parameter under all the names and modules that hold it."""

    param: Tensor
    names: list[str] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups for :class:`~mars_optim.MARS`; print it to see what goes where and why."""

    def describe(self) -> str:
        """A table with one line per group."""
        return describe(self)

    __str__ = describe


def param_groups(
    model: nn.Module,
    *,
    rule: Rule = "adamw",
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.99),
    weight_decay: float = 0.01,
    gamma: float | Literal["auto"] = 0.025,
    clip: float | Literal["auto"] | None = "auto",
    correction: Correction | None = None,
    lr_1d: float | None = None,
    betas_1d: tuple[float, float] = (0.9, 0.95),
    weight_decay_1d: float = 0.0,
    lr_embedding: float | None = None,
    decay_embeddings: bool = False,
    embeddings: Sequence[str] = EMBEDDINGS,
    heads: Sequence[str] = HEADS,
    no_decay: Sequence[str] = (),
    names: bool = True,
) -> ParamGroups:
    r"""Sort a model's trainable parameters by module and name; each is claimed exactly once.

    ======================  ================================  ===============================
    kind                    which                             rule
    ======================  ================================  ===============================
    matrix                  ndim >= 2 and none of the below   ``rule`` with MARS
    embedding               nn.Embedding, or a name in        ``rule`` with MARS; plain AdamW
                            ``embeddings``; a tied head too   under "shampoo" and "muon"
    head                    ``get_output_embeddings()``, or   as embedding, with decay
                            a name in ``heads``, untied
    vector                  ndim < 2: biases, norm gains      plain AdamW, as published
    ======================  ================================  ===============================

    Convolutions count as matrices of shape (out, in * kernel). Other weights of three and more
    dimensions (experts) count as stacks of matrices in their last two dimensions.

    Args:
        model: any module; frozen parameters are left out.
        rule: of matrices (default: "adamw").
        lr: of matrices, and of all others unless given (default: 3e-3).
        betas: of the groups with MARS (default: (0.95, 0.99)).
        weight_decay: of matrices and heads (default: 0.01).
        gamma: (default: 0.025).
        clip: (default: "auto").
        correction: (default: None). These three as in :class:`~mars_optim.MARS`.
        lr_1d: of vectors (default: None, ``lr``).
        betas_1d: of the plain AdamW groups (default: (0.9, 0.95)).
        weight_decay_1d: of vectors (default: 0.0).
        lr_embedding: of embeddings and heads (default: None: ``lr``, or ``lr_1d`` where they get
            plain AdamW).
        decay_embeddings: (default: False, as in the authors' recipe).
        embeddings: regular expressions, searched in parameter names.
        heads: likewise.
        no_decay: likewise; the matching parameters get ``weight_decay=0`` whatever their kind.
        names: False gives bare parameters, for hosts that take no names, such as
            ZeroRedundancyOptimizer (default: True).

    Returns:
        A list of dicts for ``MARS(groups)``, with (name, parameter) pairs under ``params``, or
        parameters alone.

    Raises:
        ValueError: for an unknown rule, a bad or unmatched pattern in ``no_decay``, or a model
            without trainable parameters.
    """
    check_choice("rule", rule, RULES)
    claims = _claims(model)
    if not claims:
        raise ValueError("model has no trainable parameters: nothing to optimise")
    no_decay = _checked_patterns("no_decay", no_decay, claims)
    embeddings = _checked_patterns("embeddings", embeddings, None)
    heads = _checked_patterns("heads", heads, None)
    output = _output_weight(model)

    mars: dict[str, Any] = dict(rule=rule, betas=betas, gamma=gamma)
    resolve_gamma(mars)
    mars["correction"] = resolve_correction(correction, mars.get("gamma_schedule", "constant"))
    mars["clip"] = resolve_clip(clip, mars["correction"])
    plain: dict[str, Any] = {
        "rule": "adamw",
        "betas": betas_1d,
        "gamma": 0.0,
        "clip": None,
        "correction": "approx",
    }
    lr_1d = lr if lr_1d is None else lr_1d
    ends = plain if rule in MATRIX_RULES else mars  # Newton-Schulz does not suit embeddings
    lr_ends = lr_embedding if lr_embedding is not None else (lr_1d if ends is plain else lr)
    options: dict[Kind, dict[str, Any]] = {
        "matrix": {**mars, "lr": lr, "weight_decay": weight_decay},
        "embedding": {
            **ends,
            "lr": lr_ends,
            "weight_decay": weight_decay if decay_embeddings else 0.0,
        },
        "head": {**ends, "lr": lr_ends, "weight_decay": weight_decay},
        "vector": {**plain, "lr": lr_1d, "weight_decay": weight_decay_1d},
    }

    groups: dict[tuple[Kind, bool, bool], dict[str, Any]] = {}
    for claim in claims:
        kind, why = _classify(claim, output, embeddings, heads)
        undecayed = any(re.search(p, n) for p in no_decay for n in claim.names)
        stacked = kind == "matrix" and _is_stack(claim)
        fresh = {
            "params": [],
            **options[kind],
            "kind": kind,
            "why": "",
            "stacked": stacked,
            "optimize_1d": True,  # sorted already: MARS need not split it again
        }
        group = groups.setdefault((kind, stacked, undecayed), fresh)
        if undecayed:
            group["weight_decay"] = 0.0
        _add_reason(group, why + (", no decay by name" if undecayed else ""))
        group["params"].append((claim.names[0], claim.param) if names else claim.param)
    order = ["matrix", "embedding", "head", "vector"]
    return ParamGroups(sorted(groups.values(), key=lambda g: order.index(g["kind"])))


def _add_reason(group: dict[str, Any], why: str) -> None:
    """Collect what put parameters here: each reason once, three at the most."""
    reasons = group["why"].split("; ") if group["why"] else []
    if why not in reasons and "..." not in reasons:
        reasons.append(why if len(reasons) < 3 else "...")
    group["why"] = "; ".join(reasons)


def _claims(model: nn.Module) -> list[_Claim]:
    """Every trainable parameter once, in model order, with all its names and owners."""
    claims: dict[int, _Claim] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, param in module.named_parameters(recurse=False, remove_duplicate=False):
            if param.requires_grad:
                claim = claims.setdefault(id(param), _Claim(param))
                claim.names.append(f"{prefix}.{name}" if prefix else name)
                claim.modules.append(module)
    return list(claims.values())


def _classify(
    claim: _Claim, output: Tensor | None, embeddings: Sequence[str], heads: Sequence[str]
) -> tuple[Kind, str]:
    def named(patterns: Sequence[str]) -> str | None:
        hits = (n for n in claim.names for p in patterns if re.search(p, n))
        return next(hits, None)

    if claim.param.ndim < 2:
        return "vector", "ndim < 2"
    is_head = claim.param is output or named(heads) is not None
    if any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in claim.modules):
        return "embedding", "tied with the head" if is_head else "nn.Embedding"
    if name := named(embeddings):
        return "embedding", f"by name: {name}"
    if is_head:
        return "head", f"by name: {named(heads)}" if named(heads) else "model's output embeddings"
    if any(isinstance(m, _CONVOLUTIONS) for m in claim.modules) and claim.param.ndim > 2:
        return "matrix", "ndim >= 2, kernels flattened"
    return "matrix", "stack of matrices" if _is_stack(claim) else "ndim >= 2"


def _is_stack(claim: _Claim) -> bool:
    convolution = any(isinstance(m, _CONVOLUTIONS) for m in claim.modules)
    return claim.param.ndim > 2 and not convolution


def _output_weight(model: nn.Module) -> Tensor | None:
    """The output projection that Hugging Face models name by a method."""
    method = getattr(model, "get_output_embeddings", None)
    module = method() if callable(method) else None
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) else None


def _checked_patterns(
    argument: str, patterns: Sequence[str], claims: list[_Claim] | None
) -> Sequence[str]:
    """Compile-check the patterns; with ``claims``, each must match a parameter name."""
    if isinstance(patterns, str):
        patterns = (patterns,)
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{argument}: {pattern!r} is no regular expression: {error}") from None
        if claims is not None and not any(compiled.search(n) for c in claims for n in c.names):
            some = ", ".join(c.names[0] for c in claims[:4])
            raise ValueError(f"{argument}: {pattern!r} matches no parameter; names are {some}, ...")
    return patterns
