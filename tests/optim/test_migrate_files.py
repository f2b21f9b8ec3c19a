"""``migrate`` from a file: where the optimizer's state is in it, and what is no such file."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import pytest
import torch

from mars_optim import migrate
from tests.optim.test_orders import (
    PLAIN,
    assert_goes_on,
    by_dcp,
    configure_optimizers,
    model,
    train,
)


def test_a_key_enters_lists_as_lightning_has_them(tmp_path: Path) -> None:
    net = model()
    source = torch.optim.AdamW(net.parameters(), lr=0.01)
    train(net, source, seed=1)
    twin = copy.deepcopy(net)
    torch.save({"epoch": 1, "optimizer_states": [source.state_dict()]}, tmp_path / "last.ckpt")
    target = migrate(tmp_path / "last.ckpt", twin, key="optimizer_states.0", **PLAIN)
    for key, message in (
        (None, r"no optimizer's state dict, but epoch, .*key='optimizer_states\.0'"),
        ("optimizer_states", r"but list: one is at key='optimizer_states\.0'"),
        ("optimizer_states.1", r"is not in the checkpoint; one is at key='optimizer_states\.0'"),
        ("optimizer_states.x", r"is not in the checkpoint; one is at"),
        ("epoch.x", r"is not in the checkpoint; one is at"),
    ):
        with pytest.raises(ValueError, match=message):
            migrate(tmp_path / "last.ckpt", twin, key=key)
    assert_goes_on(net, source, twin, target)


def test_a_file_with_code_and_folders_are_told_from_damage(tmp_path: Path) -> None:
    net = model()
    data = {"optimizer": configure_optimizers(net).state_dict(), "args": argparse.Namespace(a=1)}
    torch.save(data, tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match="weights_only=False") as caught:
        migrate(tmp_path / "ckpt.pt", net, key="optimizer")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"is a folder: give one of its files \(ckpt\.pt\)"):
        migrate(tmp_path, net)
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(ValueError, match="dcp_to_torch_save"):
        migrate(tmp_path, net)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_checkpoint_of_torchs_is_read_after_dcp_to_torch_save(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    net = model()
    source = configure_optimizers(net)
    train(net, source, seed=1)
    twin = copy.deepcopy(net)
    dcp.save(
        {"optim": by_dcp(net, source, flat=False)}, checkpoint_id=tmp_path / "dcp", no_dist=True
    )
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "one.pt")
    assert_goes_on(net, source, twin, migrate(tmp_path / "one.pt", twin, key="optim", **PLAIN))
