"""pytest's plugin for pytorch_optimizer's tests: its table of optimizers holds ours instead."""

from __future__ import annotations

from functools import wraps
from typing import Any

import tests.utils  # theirs: the suite's folder is the working directory
from ours import OURS, SAVED, Table, names_one
from pytorch_optimizer.base import exception
from pytorch_optimizer.optimizer import OPTIMIZERS

REFUSALS = ("NegativeLRError", "NoComplexParameterError", "NoSparseGradientError")
RECIPE = dict(lr=0.5, lr_1d=0.5, weight_decay=1e-3)


def line_of(name: str, optimizer: type, settings: dict[str, Any]) -> type:
    """A class whose defaults are one line of our list."""

    @wraps(optimizer.__init__)  # type: ignore[misc]
    def init(self: Any, params: Any, **options: Any) -> None:
        optimizer.__init__(self, params, **{**settings, **options})  # type: ignore[misc]

    return type(name, (optimizer,), {"__init__": init, "__module__": __name__})


class Refuses:
    """Refuses at its step what ours refuses when it is made; theirs refuse it there."""

    def __init__(self, error: ValueError):
        self.error = error

    def step(self, closure: Any = None) -> None:
        raise self.error


def build(name: str, params: Any, **options: Any) -> Any:
    try:
        return BUILT(name, params, **options)
    except ValueError as error:
        if "complex" not in str(error):
            raise
        return Refuses(error)


BUILT, tests.utils.build_optimizer = tests.utils.build_optimizer, build
for refusal in REFUSALS:
    setattr(exception, refusal, ValueError)  # theirs are none; ours always is
OPTIMIZERS.clear()
OPTIMIZERS.update({name: line_of(name, *line) for name, line in OURS.items()})

from tests import recipes  # noqa: E402

recipes.OPTIMIZER_RECIPES[:] = [(name, dict(RECIPE), 5) for name in OURS]
recipes.COMPILE_SUPPORTED_OPTIMIZERS[:] = recipes.OPTIMIZER_RECIPES

FAILS: dict[str, str] = {}
LEFT = {
    "test_training[[]*maximize*": "looks whether the loss falls",
    "test_tensor_lr[[]*maximize*": "looks whether the loss falls",
    **{f"test_create_compiled_optimizer[[]*{name}_(*": SAVED for name in OURS if "_" in name},
}


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(
        Table("pytorch_optimizer", lambda item: names_one(item, OPTIMIZERS), fails=FAILS, left=LEFT)
    )
