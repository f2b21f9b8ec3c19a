"""MARS by rule: the names that the papers use."""

from __future__ import annotations

from .mars import MARS


class MARSAdamW(MARS):
    """MARS with rule "adamw" (paper Alg. 2). Arguments as in :class:`MARS`.

    ``gamma=0, clip=None`` is torch.optim.AdamW; ``correction="folded", gamma=1 - beta1`` is AdamW
    with Nesterov momentum (NAdamW, at constant beta1).
    """

    _rule = "adamw"


class MARSLion(MARS):
    """MARS with rule "lion": x <- x - lr (sign(m_t) + weight_decay x) (paper Alg. 3).

    Arguments as in :class:`MARS`. The step has the size of lr in every coordinate: start from a
    third to a tenth of AdamW's lr with three to ten times its decay. ``betas=(b2, _),
    gamma=(b2 - b1) / b2, clip=None`` is Lion(b1, b2).
    """

    _rule = "lion"


class MARSShampoo(MARS):
    """MARS with rule "shampoo": x <- x - lr (sqrt(max(1, rows / cols)) U V^T + weight_decay x).

    U V^T is the orthogonal factor of m_t (paper Alg. 4, with the scale and the clip of the
    authors' code). Arguments as in :class:`MARS`. Embeddings and heads are better left to rule
    "adamw": see ``param_groups``.
    """

    _rule = "shampoo"


class MARSM(MARS):
    """MARS-M, MARS on Muon (arXiv 2510.21800), with Moonlight's scale 0.2 sqrt(max(rows, cols)).

    Arguments as in :class:`MARS`; beta1 is Muon's momentum. ``gamma=1 - beta1, clip=None`` is
    torch.optim.Muon with Nesterov momentum and ``adjust_lr_fn="match_rms_adamw"``. Embeddings and
    heads belong to rule "adamw": see ``param_groups``.
    """

    _rule = "muon"
