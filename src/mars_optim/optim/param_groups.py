"""Which parameter gets which rule, and a table that shows it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from ..optimizer_options import CHOSEN, MATRIX_RULES, RULES, Correction, Rule, check_choice
from .describe import describe
from .groups.fused import WORDS, Given, by_hand, place_of, said_of
from .groups.roles import KINDS, Claim, Kind, Role, Roles, claims_of
from .groups.split import check_vector_options
from .hyperparameters import resolve

_WORDS: dict[Kind, str] = {
    "matrix": "a matrix",
    "embedding": "an embedding",
    "head": "a head",
    "router": "a router",
    "other": "no matrix",
    "vector": "a vector",
}


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups for :class:`~mars_optim.MARS`; print it to see what goes where and why."""

    guesses: Mapping[str, str] = {}
    """Names whose role no type told, numbers as *, with what they were taken for and why."""

    def describe(self) -> str:
        """A table with one line per group, and below it what was guessed."""
        table, *beware = describe(self).partition("\n! ")
        told = [f"- guessed: {name} is {what}" for name, what in self.guesses.items()]
        return "".join(["\n".join([table, *told]), *beware])

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
    lr_1d_ratio: float | None = None,
    betas_1d: tuple[float, float] = (0.9, 0.95),
    weight_decay_1d: float = 0.0,
    lr_embedding: float | None = None,
    decay_embeddings: bool = False,
    embeddings: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    matrices: Sequence[str] = (),
    no_decay: Sequence[str] = (),
    split: Given = None,
    names: bool = True,
) -> ParamGroups:
    r"""Sort a model's trainable parameters by what they are for; each is claimed exactly once.

    ======================  ================================  ===============================
    kind                    which                             rule
    ======================  ================================  ===============================
    matrix                  weights of linear layers and      ``rule`` with MARS
                            convolutions, experts
    embedding               nn.Embedding; learnt tokens,      ``rule`` with MARS; plain AdamW
                            positions and bias tables; a      under "shampoo" and "muon"
                            tied head too
    head                    ``get_output_embeddings()``, or   as embedding, with decay
                            a linear layer of the model
                            itself, by name, width or place
    router                  what chooses experts              as head
    other                   what no product of matrices is    as head, with ``lr`` and not
                            known to use, depthwise kernels   ``lr_embedding`` under other rules
    vector                  ndim < 2, or (1, 1, n); norms,    plain AdamW, as published
                            biases, A_log
    ======================  ================================  ===============================

    A module's type decides where it can, then role and shape, then names. ``guesses`` of what is
    returned has all that no type told; printing it shows them.

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
        lr_1d_ratio: the same as a multiple of ``lr``, see :class:`~mars_optim.MARS`
            (default: None).
        betas_1d: of the plain AdamW groups (default: (0.9, 0.95)).
        weight_decay_1d: of vectors (default: 0.0).
        lr_embedding: of embeddings and heads (default: None: ``lr``, or ``lr_1d`` where they get
            plain AdamW).
        decay_embeddings: (default: False, as in the authors' recipe).
        embeddings: regular expressions, searched in parameter names (default: None, found out by
            names that models commonly use). nn.Embedding is one whatever they say.
        heads: likewise (default: None, found out); () for a model that ends in a hidden layer.
        matrices: likewise; the matching parameters of two and more dimensions are matrices,
            whatever else they look like (default: ()).
        no_decay: likewise; the matching parameters get ``weight_decay=0`` whatever their kind.
        split: into which blocks the matrices of the rules "muon" and "shampoo" are cut, each of
            which is orthogonalised by itself. "fused": fused QKV into queries, keys and values,
            fused gate and up projections into two, as the model's classes and config say; "heads":
            those, and queries, keys and values head by head. Or {pattern: blocks}, of which
            :mod:`.blocks` has the forms and None leaves whole; or both: ("fused", {pattern: ...})
            (default: None, as stored).
        names: False gives bare parameters, for hosts that take no names, such as
            ZeroRedundancyOptimizer (default: True).

    Returns:
        A list of dicts for ``MARS(groups)``, with (name, parameter) pairs under ``params``, or
        parameters alone.

    Raises:
        ValueError: for an unknown rule, a bad pattern, one of ``no_decay``, ``matrices`` or
            ``split`` that matches nothing, a split that does not fit, or a model without trainable
            parameters.
    """
    check_choice("rule", rule, RULES)
    claims = claims_of(model)
    if not claims:
        raise ValueError("model has no trainable parameters: nothing to optimise")
    no_decay = _checked_patterns("no_decay", no_decay, claims)
    matrices = _checked_patterns("matrices", matrices, claims)
    if embeddings is not None:
        embeddings = _checked_patterns("embeddings", embeddings, None)
    if heads is not None:
        heads = _checked_patterns("heads", heads, None)
    roles = Roles(model, claims, embeddings, heads, matrices).sort()

    mars = resolve(dict(rule=rule, betas=betas, gamma=gamma, correction=correction, clip=clip))
    plain: dict[str, Any] = {
        "rule": "adamw",
        "betas": betas_1d,
        "gamma": 0.0,
        "clip": None,
        "correction": "approx",
    }
    check_vector_options({"lr_1d": lr_1d, "lr_1d_ratio": lr_1d_ratio})
    if lr_1d_ratio is not None:
        plain["lr_ratio"] = lr_1d_ratio
    lr_1d = lr if lr_1d is None else lr_1d
    ends = plain if rule in MATRIX_RULES else mars  # Newton-Schulz does not suit embeddings
    others = {**ends, "lr": lr_1d if ends is plain else lr}
    if lr_embedding is not None:  # the rate itself
        ends = {**ends, "lr": lr_embedding, **({} if lr_1d_ratio is None else {"lr_ratio": 1.0})}
    else:
        ends = others
    options: dict[Kind, dict[str, Any]] = {
        "matrix": {**mars, "lr": lr, "weight_decay": weight_decay},
        "embedding": {**ends, "weight_decay": weight_decay if decay_embeddings else 0.0},
        "head": {**ends, "weight_decay": weight_decay},
        "router": {**others, "weight_decay": weight_decay},
        "other": {**others, "weight_decay": weight_decay},
        "vector": {**plain, "lr": lr_1d, "weight_decay": weight_decay_1d},
    }

    cuts = splits(model, claims, roles, split, rule)
    groups: dict[tuple[Kind, bool, bool, Any], dict[str, Any]] = {}
    for claim, (kind, why, guessed), (cut, _) in zip(claims, roles, cuts, strict=True):
        undecayed = any(re.search(p, n) for p in no_decay for n in claim.names)
        stacked = kind == "matrix" and claim.is_stack
        fresh = {
            "params": [],
            **options[kind],
            "kind": kind,
            "why": "",
            "stacked": stacked,
            "split": cut,
            "optimize_1d": True,  # sorted already: MARS need not split it again
        }
        group = groups.setdefault((kind, stacked, undecayed, cut), fresh)
        if undecayed:
            group["weight_decay"] = 0.0
        also = ", no decay by name" * undecayed + (f", split {cut}" if cut else "")
        _add_reason(group, "guessed " * guessed + why + also)
        group["params"].append((claim.names[0], claim.param) if names else claim.param)
    sorted_groups = ParamGroups(sorted(groups.values(), key=lambda g: KINDS.index(g["kind"])))
    sorted_groups.guesses = _guesses(claims, roles, cuts)
    if mars.get("gamma_schedule") in CHOSEN and not any(group["gamma"] for group in sorted_groups):
        kinds = ", ".join(dict.fromkeys(group["kind"] for group in sorted_groups))
        warnings.warn(
            f"param_groups: gamma='auto' corrects nothing: all that the model trains ({kinds}) "
            f"gets plain AdamW under rule={rule!r}. Give gamma=0, or train matrices, too",
            stacklevel=2,
        )
    return sorted_groups


def splits(
    model: nn.Module, claims: Sequence[Claim], roles: Sequence[Role], given: Given, rule: Rule
) -> list[tuple[Any, bool]]:
    """Split that a group has for each claim, and whether it is guessed."""
    parts = [given] if given is None or isinstance(given, str | Mapping) else _parts(given)
    words = [part for part in parts if part is not None and not isinstance(part, Mapping)]
    for word in words:
        check_choice("split", word, WORDS)
    if words[1:]:
        raise ValueError(
            f"split={given!r} has two words: give only one of {', '.join(map(repr, WORDS))}"
        )
    named = {p: value for part in parts if isinstance(part, Mapping) for p, value in part.items()}
    if given is not None and rule not in MATRIX_RULES:
        raise ValueError(
            f"split={given!r} belongs to Newton-Schulz, which rule={rule!r} does not use: "
            "leave it out, or use rule='muon' or 'shampoo'"
        )
    matrices = [c for c, role in zip(claims, roles, strict=True) if role.kind == "matrix"]
    _checked_patterns("split", list(named), claims)
    _checked_patterns("split", list(named), matrices, "matrix")
    found: list[tuple[Any, bool]] = []
    for claim, role in zip(claims, roles, strict=True):
        pattern = claim.named(list(named)) and next(p for p in named if claim.named([p]))
        if role.kind != "matrix":
            found.append((None, False))
        elif pattern is not None:
            found.append((by_hand(place_of(model, claim), pattern, named[pattern]), False))
        else:
            found.append(said_of(place_of(model, claim), words[0]) if words else (None, False))
    return found


def _parts(given: Any) -> list[Any]:
    """A word and a table of patterns, side by side."""
    known = isinstance(given, tuple | list)
    if known and all(part is None or isinstance(part, str | Mapping) for part in given):
        return list(given)
    raise ValueError(
        f"split={given!r} must be {' or '.join(map(repr, WORDS))}, a dict such as "
        "{'qkv': 3} of patterns and blocks, or a tuple of both"
    )


def _guesses(
    claims: Sequence[Claim], roles: Sequence[Role], cuts: Sequence[tuple[Any, bool]]
) -> dict[str, str]:
    """Guesses about each name, those of repeated blocks once."""
    guesses = {}
    for claim, (kind, why, guessed), (cut, by_name) in zip(claims, roles, cuts, strict=True):
        if guessed or by_name:
            name = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", claim.names[0])
            reason = "" if why.startswith("by name") or not guessed else f" ({why})"
            cut_up = f", split {cut} by its layer's name" if by_name else ""
            guesses[name] = f"{_WORDS[kind]}{reason}{cut_up}"
    return guesses


def _add_reason(group: dict[str, Any], why: str) -> None:
    """Collect what put parameters here: each reason once, three at the most."""
    reasons = group["why"].split("; ") if group["why"] else []
    if why not in reasons and "..." not in reasons:
        reasons.append(why if len(reasons) < 3 else "...")
    group["why"] = "; ".join(reasons)


def _checked_patterns(
    argument: str, patterns: Sequence[str], claims: Sequence[Claim] | None, of: str = "parameter"
) -> Sequence[str]:
    """Compile-check the patterns; with ``claims``, each must match the name of one."""
    if isinstance(patterns, str):
        patterns = (patterns,)
    for pattern in patterns:
        if not isinstance(pattern, str | re.Pattern):
            raise ValueError(f"{argument}: {pattern!r} must be a string, a regular expression")
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{argument}: {pattern!r} is not a regular expression: {error}"
            ) from None
        if claims is not None and not any(compiled.search(n) for c in claims for n in c.names):
            some = ", ".join(c.names[0] for c in claims[:4])
            raise ValueError(f"{argument}: {pattern!r} matches no {of}; names are {some}, ...")
    return patterns
