"""From the settings of a small model to those of a larger one: published rules, group by group.

Ratios are the target's over the base's: m of width, d of depth (blocks), t of tokens, b of tokens
in a batch. With these rules every activation, and its change by a step, keeps its size as width and
depth grow (maximal update: Tensor Programs V, arXiv 2203.03466; depth: CompleteP, 2505.01618).

=============  ==================================  ==========  ===================  =============
kind           lr                                  start       decay                eps
=============  ==================================  ==========  ===================  =============
matrix         1/m adamw, lion; 1/sqrt(m) muon;    1/sqrt(m)   lr decay is 1/m      1/(m d)
               1 shampoo
embedding      1                                   1           1                    1/m
head           1                                   1           1                    1/m
router         1/m                                 1/m         1                    1/m
other, vector  1                                   1           1                    1/m
=============  ==================================  ==========  ===================  =============

Every lr is also times t^-0.32 (2409.19913, 2603.28743) and, up to the noise scale, sqrt(b); with b
also go decay, sqrt(b), eps, 1/sqrt(b), and betas, 1 - b (1 - beta) (2205.10287). In the model,
logits are multiplied by 1/m (also those of a tied embedding) and each residual branch by 1/d. With
a vocabulary large beside the width an embedding's lr may go with 1/sqrt(m) (2407.17465,
2506.15025): that is left to ``large_vocabulary``, for it did not pay here (docs/transfer.md). No
rule is published for gamma: it stays, or ``"auto"`` chooses it in the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .groups.roles import KINDS, Kind
from .param_groups import ParamGroups

TOKENS = -0.32
"""Power of the tokens that the best lr goes with, at one batch: found from 25 billion tokens on
for AdamW (arXiv 2409.19913), and for Muon on a sphere (2603.28743). Small runs have flatter ones
(docs/transfer.md), so a ratio in the thousands makes too little of a rate."""

MATRIX_WIDTH = {"adamw": -1.0, "lion": -1.0, "muon": -0.5, "shampoo": 0.0}
"""Power of the width that a matrix's lr goes with, so that lr times the spectral norm of a step
does not: AdamW's and Lion's is m, Muon's 0.2 sqrt(max(rows, cols)), Shampoo's sqrt(rows / cols)."""

EMBEDDING_WIDTH = -0.5
"""Power of the width that an embedding's lr goes with where the vocabulary is large (arXiv
2407.17465 and 2506.15025)."""

EPS = 1e-8  # where a group says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """The target over the base, each above 0.

    Args:
        width: m, of the residual stream (default: 1).
        depth: d, of the number of blocks (default: 1).
        tokens: t, that are trained on (default: 1).
        batch: b, of the tokens in a batch (default: 1).
        noise_scale: tokens of the gradient's noise scale over the base's batch: beyond it a larger
            batch raises no rate (default: None, not known).
        large_vocabulary: whether embeddings' rates fall with 1/sqrt(m), for a vocabulary that is
            large beside the width; else they stay (default: False).
        tokens_exponent: power of t that every rate goes with, from -1 to 1 (default: -0.32).

    Raises:
        ValueError: for a ratio that is not finite and above 0, or an exponent out of range.
    """

    width: float = 1.0
    depth: float = 1.0
    tokens: float = 1.0
    batch: float = 1.0
    noise_scale: float | None = None
    large_vocabulary: bool = False
    tokens_exponent: float = TOKENS

    def __post_init__(self) -> None:
        if not -1.0 <= self.tokens_exponent <= 1.0:
            raise ValueError(f"tokens_exponent={self.tokens_exponent!r} must be from -1 to 1")
        for name in ("width", "depth", "tokens", "batch", "noise_scale"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name}={value!r} must be a finite number above 0")

    @property
    def useful_batch(self) -> float:
        """b as far as it raises rates: what lies above the noise scale counts as the scale."""
        if self.noise_scale is None:
            return self.batch
        return min(self.batch, self.noise_scale) / min(1.0, self.noise_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Factors of a group's settings; ``start`` is that of the standard deviation."""

    lr: float
    decay: float
    eps: float
    start: float


def factors(kind: Kind, rule: str, ratios: Ratios) -> Factors:
    """The rules of the table above.

    Args:
        kind: of the parameters, as :func:`~mars_optim.param_groups` sorts them.
        rule: that steps them: "adamw", "lion", "muon" or "shampoo".
        ratios: of target and base.

    Raises:
        ValueError: for another kind or rule.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(map(repr, KINDS))}")
    if rule not in MATRIX_WIDTH:
        raise ValueError(f"rule={rule!r} must be one of {', '.join(map(repr, MATRIX_WIDTH))}")
    m, d, root_b = ratios.width, ratios.depth, math.sqrt(ratios.useful_batch)
    over_all = ratios.tokens**ratios.tokens_exponent * root_b
    eps = 1.0 / (m * root_b)
    if kind == "matrix":
        lr = m ** MATRIX_WIDTH[rule]
        # lr decay ~ 1/m (arXiv 2512.05620), so what is multiplied by lr goes with 1 / (m lr)
        decay = 1.0 / (m * lr)
        return Factors(lr=lr * over_all, decay=decay * root_b, eps=eps / d, start=m**-0.5)
    if kind == "embedding" and ratios.large_vocabulary:
        return Factors(lr=over_all * m**EMBEDDING_WIDTH, decay=root_b, eps=eps, start=1.0)
    if kind == "router":
        return Factors(lr=over_all / m, decay=root_b, eps=eps, start=1.0 / m)
    return Factors(lr=over_all, decay=root_b, eps=eps, start=1.0)


def batch_betas(betas: Iterable[float], batch: float) -> tuple[float, ...]:
    """The betas that forget as much in a token: 1 - b (1 - beta).

    Raises:
        ValueError: where that is below 0, so that no average is left.
    """
    found = tuple(1.0 - batch * (1.0 - beta) for beta in betas)
    if min(found) < 0.0:
        raise ValueError(
            f"batch={batch:g} times the base's leaves no average for betas {tuple(betas)}: "
            "take a smaller batch or a base with a larger one, or give the noise scale, "
            "beyond which a batch changes no setting"
        )
    return found


def transferred(
    groups: Iterable[Mapping[str, Any]],
    *,
    width: float = 1.0,
    depth: float = 1.0,
    tokens: float = 1.0,
    batch: float = 1.0,
    noise_scale: float | None = None,
    large_vocabulary: bool = False,
    tokens_exponent: float = TOKENS,
) -> ParamGroups:
    """The groups of a larger model, from settings that were tuned on a smaller one.

    ``MARS(transferred(param_groups(model, lr=...), width=8))``: ``model`` is the large one, the lr
    the small one's. What the optimizer cannot do is the model's: starts, the multipliers of logits
    and residual branches (``mars transfer`` prints them).

    Args:
        groups: of :func:`~mars_optim.param_groups`.
        width: the target's over the base's (default: 1).
        depth: likewise, of blocks (default: 1).
        tokens: likewise, of the whole run (default: 1).
        batch: likewise, of a batch (default: 1).
        noise_scale: tokens of the noise scale over those of the base's batch (default: None).
        large_vocabulary: whether embeddings' rates fall with 1/sqrt(width), for a vocabulary that
            is large beside the width (default: False).
        tokens_exponent: power of ``tokens`` that every rate goes with, from -1 to 1 (default:
            -0.32, which was found from 25 billion tokens on: docs/transfer.md).

    Raises:
        ValueError: for a ratio that is not finite and above 0, an exponent out of range, or groups
            without kind and lr.
    """
    ratios = Ratios(
        width=width,
        depth=depth,
        tokens=tokens,
        batch=batch,
        noise_scale=noise_scale,
        large_vocabulary=large_vocabulary,
        tokens_exponent=tokens_exponent,
    )
    given = list(groups)
    for key in ("kind", "rule", "lr", "betas", "weight_decay"):
        if any(key not in group for group in given):
            raise ValueError(f"a group has no {key!r}: give what param_groups(model) returned")
    scaled = ParamGroups({**g, **settings_at(g, ratios)} for g in given)
    scaled.guesses = getattr(groups, "guesses", {})
    return scaled


def settings_at(group: Mapping[str, Any], ratios: Ratios) -> dict[str, Any]:
    """lr, weight_decay, eps and betas of a group at the target; ``group`` has the base's."""
    found = factors(group["kind"], group["rule"], ratios)
    return {
        "lr": group["lr"] * found.lr,
        "weight_decay": group["weight_decay"] * found.decay,
        "eps": group.get("eps", EPS) * found.eps,
        "betas": batch_betas(group["betas"], ratios.useful_batch),
    }
