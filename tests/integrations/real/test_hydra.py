"""Under Hydra, whose configuration names a target and its arguments."""

from __future__ import annotations

import pytest

from tests.integrations.test_frameworks_page import yaml_block
from tests.support.toy import make_toy

hydra = pytest.importorskip("hydra", reason="hydra-core is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # the host's own are not ours to fix


def test_the_pages_configuration_makes_the_optimizer() -> None:
    config = yaml_block("By name")["optimizer"]
    optimizer = hydra.utils.instantiate(config)(make_toy())
    assert optimizer.param_groups[0]["gamma_schedule"] == "auto"


def test_the_command_line_changes_the_name() -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create(yaml_block("By name"))
    config.merge_with_dotlist(["optimizer._args_=[mars-m]", "optimizer.lr=0.01"])
    optimizer = hydra.utils.instantiate(config.optimizer)(make_toy())
    assert (optimizer.param_groups[0]["rule"], optimizer.param_groups[0]["lr"]) == ("muon", 0.01)
