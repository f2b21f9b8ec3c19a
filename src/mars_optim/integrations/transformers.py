"""For the Trainer of Hugging Face transformers: groups by module and name instead of its two."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from ..optim import MARS, param_groups


class GroupedMARS:
    """Factory for ``Trainer(optimizer_cls_and_kwargs=(GroupedMARS, {...}))``.

    The Trainer sorts parameters by name into two groups, decayed or not, and knows no embeddings
    or heads. This hands it ``MARS(param_groups(model, ...))`` instead::

        Trainer(..., optimizer_cls_and_kwargs=(GroupedMARS, {"rule": "muon", "lr": 6e-3}))

    The Trainer passes neither ``learning_rate`` nor ``weight_decay`` of its arguments: give
    them here.
    """

    def __call__(self, model: nn.Module, **options: Any) -> MARS:
        """The optimizer of ``model``.

        Args:
            model: as the Trainer trains it.
            **options: those of :func:`~mars_optim.param_groups`; any others (``eps``, ``amsgrad``,
                ``foreach``, ``fused``, ...) are of :class:`~mars_optim.MARS`.

        Raises:
            TypeError: for an option that neither has.
        """
        of_groups = inspect.signature(param_groups).parameters
        groups = param_groups(model, **{k: v for k, v in options.items() if k in of_groups})
        return MARS(groups, **{k: v for k, v in options.items() if k not in of_groups})
