"""Packages that only some sources need."""

from __future__ import annotations

import importlib
from typing import Any

from ..records import UserError


def need(module: str, extra: str) -> Any:
    """Import ``module``.

    Raises:
        UserError: naming the extra of mars-optim that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"this source needs the package {package!r}: pip install 'mars-optim[{extra}]'"
        ) from None
