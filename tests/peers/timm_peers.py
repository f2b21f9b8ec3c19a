"""pytest's plugin for timm's tests/test_optim.py: its registry holds ours too.

The module's name begins with timm, for some tests are for "timm's own" classes, known by that.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ours import OURS, SAVED, Table, names_one


def shell(name: str, **content: Any) -> None:
    """A package without its __init__: timm's own would load its models and torchvision."""
    module = ModuleType(name)
    module.__path__ = [str(Path.cwd().joinpath(*name.split(".")))]
    vars(module).update(content)
    sys.modules[name] = module


shell("timm")
shell("timm.models", group_parameters=None)

from timm.optim import _optim_factory  # type: ignore[import-not-found] # noqa: E402

NAMES = {}
for line, (optimizer, settings) in OURS.items():
    name = line.replace("_", "")  # timm splits at it
    NAMES[name] = type(name, (optimizer,), {"__module__": __name__})
    globals()[name] = NAMES[name]  # for pickle
    takes = inspect.signature(optimizer).parameters
    _optim_factory.default_registry.register(
        _optim_factory.OptimInfo(
            name=name,
            opt_class=NAMES[name],
            has_eps="eps" in takes,
            has_betas="betas" in takes,
            defaults={key: value for key, value in settings.items() if key != "lr"},
        )
    )

RATES = {name: dict(rosenbrock_lr=1e-3, model=dict(lr=1e-2), after_step=1) for name in NAMES}
RATES["marsadamwamsgrad"]["rosenbrock_lr"] = 0.1  # torch's AdamW fails at 1e-3 with it, too
FAILS = {
    "test_optimizer_zero_lr[[]marsadamw1d-*": "",
    "test_optimizer_zero_lr[[]*-False]": "sets the lr of group 0: vectors have their own group",
    "test_optimizer_zero_lr[[]*-True]": "fills the tensor lr that was given: vectors have a copy",
    "test_optimizer_param_group_independent[[]marsadamwclipall]": "one norm for all, as asked",
}
BY_CPU = "by CPU: the loop has Newton-Schulz in bfloat16, foreach in float32 where that is emulated"
LEFT = {
    "test_optimizer_foreach_parity[[]marsm]": BY_CPU,
    "test_optimizer_foreach_parity[[]marsshampoo]": BY_CPU,
    "test_optim_factory[[]*maximize]": "looks whether the loss falls",
    "test_optimizer_convergence[[]*maximize]": "looks whether the loss falls",
    **{
        f"test_optimizer_foreach_parity[[]{line.replace('_', '')}]": SAVED
        for line in OURS
        if "_" in line
    },
}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: Any) -> None:
    """Convergence is tested for the optimizers that have rates: these are ours."""
    if metafunc.function.__name__ == "test_optimizer_convergence":
        rates = {name: dict(rate, basic=()) for name, rate in RATES.items()}
        metafunc.module._CONVERGENCE_CFGS = rates
        metafunc.definition.own_markers[:] = [pytest.mark.parametrize("optimizer", rates).mark]


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(
        Table("timm", lambda item: names_one(item, NAMES), fails=FAILS, left=LEFT)
    )
