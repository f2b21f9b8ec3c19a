"""``migrate`` from a file: where the optimizer's state is in it, and what is no such file."""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("content", [b"hello world", b'{"state": 1}', b"a,b\n1,2\n", b""])
def test_a_file_of_another_program_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt' is not a file of torch\.save") as caught:
        migrate(tmp_path / "x.pt", model())
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_cannot_be_read(tmp_path: Path) -> None:
    torch.save(saved(model()), tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"x\.pt' cannot be read") as caught:
        migrate(tmp_path / "x.pt", model())
    assert "\n" not in str(caught.value)


def saved(net: torch.nn.Module) -> dict[str, Any]:
    """State dict of an AdamW that has taken a step."""
    source = configure_optimizers(net)
    train(net, source, seed=1)
    return copy.deepcopy(source.state_dict())


DAMAGES: dict[str, tuple[Any, str]] = {
    "no-lr": (lambda d: d["param_groups"][0].pop("lr"), r"param_groups\[0\] .* has no 'lr'"),
    "number": (lambda d: d.update(param_groups=3), "must be a list of dicts, but is int '3'"),
    "words": (lambda d: d.update(param_groups=["a"]), "must be a list of dicts, but is list"),
    "params": (lambda d: d["param_groups"][0].update(params=7), r"\['params'\] .* must be a list"),
    "state": (lambda d: d.update(state=[1]), "must be a dict of dicts"),
    "state-of-one": (lambda d: d["state"].update({0: 1}), "must be a dict of dicts"),
    "nan": (lambda d: d["state"][0]["exp_avg"].fill_(math.nan), "exp_avg of .* not finite"),
    "inf": (lambda d: d["state"][1]["exp_avg"].fill_(-math.inf), "exp_avg of parameter 1"),
    "negative": (lambda d: d["state"][0]["exp_avg_sq"].fill_(-1.0), "exp_avg_sq .* below 0"),
    "nan-square": (lambda d: d["state"][0]["exp_avg_sq"].fill_(math.nan), "exp_avg_sq .* NaN"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_dict_is_refused_naming_the_place(damage: str) -> None:
    hurt, message = DAMAGES[damage]
    net = model()
    data = saved(net)
    hurt(data)
    with pytest.raises(ValueError, match=message):
        migrate(data, net, order="ndim")


def test_parameters_and_keys_of_other_types_are_refused() -> None:
    net = model()
    data = saved(net)
    for params, told in ((dict(net.named_parameters()), "holds"), (3, "is int")):
        with pytest.raises(ValueError, match=f"params {told}.* give the model"):
            migrate(data, params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key=3 must be a string"):
        migrate({"a": data}, net, key=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"gamma": "auto"}, {"clip": None}, {"cautious": True}])
def test_options_of_mars_are_refused_on_the_way_back(option: dict[str, Any]) -> None:
    net = model()
    with pytest.raises(ValueError, match="is an option of MARS, and to='adamw' makes an AdamW"):
        migrate(configure_optimizers(net), to="adamw", **option)
