"""pytest's plugin for torch's test_optim.py: its data base of optimizers holds ours instead."""

from __future__ import annotations

from typing import Any

import torch
from ours import OURS, Table
from torch.testing._internal import common_optimizers as theirs

NO_COMPLEX = "refuses complex matrices, in one line"
WORDS = {"Tensor lr must be 1-element": "must be a number"}
NOT_FUSED = ("marsadamw_cautious", "marsshampoo", "marsm", "marsm_plain", "marsm_folded")


class Info(theirs.OptimizerInfo):  # type: ignore[misc]
    """One line of our list; a test for each, so that one cannot hide another."""

    def __init__(self, name: str, optimizer: type, settings: dict[str, Any]):
        self._name = name
        super().__init__(
            optimizer,
            optim_inputs_func=lambda device, dtype=None: [
                theirs.OptimizerInput(params=None, kwargs=dict(settings), desc=name)
            ],
            supported_impls=("foreach",) if name in NOT_FUSED else ("foreach", "fused"),
            supports_fused_on=() if name in NOT_FUSED else ("cpu",),
            not_og_supported_flags=("foreach", "maximize", "capturable"),
            has_capturable_arg=True,
            optim_error_inputs_func=wrong,
        )

    @property
    def name(self) -> str:
        return self._name


def wrong(device: str, dtype: torch.dtype) -> list[Any]:
    """torch's own wrong inputs, in our words."""
    general = theirs.get_error_inputs_for_all_optims(device, dtype)
    for error in general:
        error.error_regex = WORDS.get(error.error_regex, error.error_regex)
    return general


theirs.optim_db[:] = [Info(name, *line) for name, line in OURS.items()]

FAILS = {
    "test_can_load_from_to_named*False_is_named_optim1_False_*": "",
    "test_can_load_from_to_named*_marsadamw_1d_*": "",
    "test_can_load_from_to_named*": "looks for all names in group 0: vectors have their own group",
    "test_complex_marsadamw_1d_*": "",
    "test_complex_marsshampoo_*": NO_COMPLEX,
    "test_complex_marsm*": NO_COMPLEX,
    "test_complex_mars*": "takes a complex vector's real view: to ours, a matrix",
    "test_fused_error_on_params_on_meta*": "wants torch's RuntimeError: ours is a ValueError",
}
LEFT: dict[str, str] = {}


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(
        Table("torch", lambda item: "mars" in item.name, fails=FAILS, left=LEFT)
    )
