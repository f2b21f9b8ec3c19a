"""Bad arguments: refused at once, by name and value, with the way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARS, MARSM, MARSAdamW, MARSLion, MARSShampoo
from tests.support.cases import make_params

NAN, INF = float("nan"), float("inf")

# class, arguments, what the message says
ARGUMENTS: list[tuple[type[MARS], dict[str, Any], str]] = [
    (MARSAdamW, {"lr": -1}, r"lr=-1.* at least 0"),
    (MARSAdamW, {"lr": "a"}, r"lr='a' must be a number, not str"),
    (MARSAdamW, {"lr": None}, r"lr=None must be a number"),
    (MARSAdamW, {"lr": INF}, r"lr=inf .*finite"),
    (MARSAdamW, {"lr": torch.tensor(-1.0)}, r"lr=-1.* at least 0"),
    (MARSAdamW, {"lr": torch.ones(2)}, r"lr=tensor of shape \(2,\) must be a number"),
    (MARSAdamW, {"lr": torch.ones(9, 2)}, r"^lr=tensor of shape \(9, 2\) [^\n]*element$"),
    (MARSAdamW, {"betas": (1, 0.9)}, r"betas\[0\]=1.* in \[0, 1\)"),
    (MARSAdamW, {"betas": (0.9, -0.1)}, r"betas\[1\]=-0\.1 .* in \[0, 1\)"),
    (MARSAdamW, {"betas": 0.9}, r"betas=0\.9 must be a pair"),
    (MARSAdamW, {"betas": (0.9, 0.9, 0.9)}, r"betas=.* must be a pair"),
    (MARSAdamW, {"betas": (0.9, "b")}, r"betas\[1\]='b' must be a number"),
    (MARSAdamW, {"eps": -1e-8}, r"eps=-1e-08 .* at least 0"),
    (MARSAdamW, {"weight_decay": -0.1}, r"weight_decay=-0\.1 .* at least 0"),
    (MARSAdamW, {"weight_decay": None}, r"weight_decay=None must be a number"),
    (MARSAdamW, {"gamma": -1}, r"gamma=-1 .*at least 0.*0 switches"),
    (MARSAdamW, {"gamma": NAN}, r"gamma=nan .*finite"),
    (MARSAdamW, {"gamma": True}, r"gamma=True must be a number, not bool"),
    (MARSAdamW, {"gamma": "atuo"}, r"gamma='atuo' must be 'auto' or a number.*mean 'auto'"),
    (MARSAdamW, {"clip": 0}, r"clip=0 .*above 0.*None switches"),
    (MARSAdamW, {"clip": "x"}, r"clip='x' must be 'auto' or a number above 0, or None"),
    (MARSAdamW, {"clip": NAN}, r"clip=nan .*above 0"),
    (MARSAdamW, {"clip": 1.0, "correction": "folded"}, r"clip=1\.0 .*folded.*leave clip out"),
    (MARSAdamW, {"correction": "foled"}, r"correction='foled' .*did you mean 'folded'"),
    (MARSAdamW, {"clip_over": "every"}, r"clip_over='every' must be one of 'tensor', 'global'"),
    (MARSAdamW, {"cautious": 1}, r"cautious=1 must be True or False"),
    (MARSAdamW, {"lr_1d": -1}, r"lr_1d=-1 .*at least 0"),
    (MARSAdamW, {"betas_1d": (2, 0.9)}, r"betas_1d\[0\]=2.* in \[0, 1\)"),
    (MARSAdamW, {"betas_1d": None}, r"betas_1d=None"),
    (MARSAdamW, {"weight_decay_1d": "b"}, r"weight_decay_1d='b' must be a number"),
    (MARSAdamW, {"foreach": True, "fused": True}, r"foreach=True and fused=True exclude"),
    (MARSM, {"ns_steps": 0}, r"ns_steps=0 .* from 1 to 99"),
    (MARSM, {"ns_steps": 100}, r"ns_steps=100 .* from 1 to 99"),
    (MARSM, {"ns_steps": 2.5}, r"ns_steps=2\.5 .*whole number"),
    (MARSM, {"ns_coefficients": (1.0, 2.0)}, r"ns_coefficients=\(1\.0, 2\.0\) .*three numbers"),
    (MARSM, {"ns_coefficients": 3}, r"ns_coefficients=3 .*three numbers"),
    (MARSM, {"ns_coefficients": ("a", 1.0, 2.0)}, r"ns_coefficients.*'a'"),
    (MARSM, {"ns_coefficients": (NAN, 1.0, 1.0)}, r"ns_coefficients=.*nan.* all finite"),
    (MARSM, {"ns_coefficients": ((1.0, INF, 1.0),)}, r"ns_coefficients=.*inf.* all finite"),
    (
        MARSLion,
        {"lr_1d_ratio": 0.1, "optimize_1d": True},
        r"lr_1d_ratio=0\.1 .*optimize_1d=True rule='lion' steps them itself: leave one",
    ),
    (MARSLion, {"amsgrad": True}, r"amsgrad=True needs rule='adamw', not rule='lion'"),
    (MARSLion, {"rule": "adamw"}, r"MARSLion always has rule='lion': use MARS"),
    (MARS, {"rule": "adam"}, r"rule='adam' .*did you mean 'adamw'"),
    (MARSAdamW, {"rule": "adam"}, r"rule='adam' .*did you mean 'adamw'"),
]


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[1]}") for row in ARGUMENTS],
)
def test_bad_argument_is_named_with_its_value_and_the_way_out(
    cls: type[MARS], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cls(make_params(), **options)


GROUP_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"weigth_decay": 0.0}, r"unknown key 'weigth_decay' .*did you mean 'weight_decay'"),
    ({"lr1d": 0.1}, r"unknown key 'lr1d' .*did you mean 'lr_1d'"),
    ({"gama": 0.1}, r"unknown key 'gama' .*did you mean 'gamma'"),
    ({"beta": (0.9, 0.9)}, r"unknown key 'beta' .*did you mean 'betas'"),
    ({"lr": -1}, r"lr=-1.* at least 0"),
    ({"rule": "muonn"}, r"rule='muonn' .*did you mean 'muon'"),
    ({"clip": 1.0, "correction": "folded"}, r"clip=1\.0 .*folded.*leave clip out"),
    ({"clip": "x"}, r"clip='x' must be 'auto' or a number above 0, or None"),
    ({"lr_1d": NAN}, r"lr_1d=nan .*finite"),
    ({"betas_1d": 0.9}, r"betas_1d=0\.9 must be a pair"),
    ({"rule": "lion", "amsgrad": True}, r"amsgrad=True needs rule='adamw', not rule='lion'"),
    ({"foreach": True, "fused": True}, r"foreach=True and fused=True exclude"),
]


@pytest.mark.parametrize(
    ("options", "message"), [pytest.param(*row, id=str(row[0])) for row in GROUP_OPTIONS]
)
def test_bad_option_of_a_group_is_refused_when_it_is_added(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MARS([{"params": make_params(), **options}])
    optimizer = MARS(make_params())
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": make_params(seed=1), **options})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("cls", [MARSShampoo, MARSM])
def test_fused_is_refused_where_there_is_no_such_kernel(cls: type[MARS]) -> None:
    params = make_params([(5, 3)])
    optimizer = cls(params, fused=True)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(ValueError, match=r"fused=True .*has no CPU kernel.*leave fused=None"):
        optimizer.step()


def test_fused_is_refused_where_it_cannot_do_the_work() -> None:
    x = nn.Parameter(torch.ones(6, 2)[::2])
    optimizer = MARSAdamW([x], fused=True)
    x.grad = torch.ones_like(x)
    with pytest.raises(ValueError, match=r"fused=True is not possible here: .*leave fused=None"):
        optimizer.step()


PARAMETERS: dict[str, tuple[Any, type[Exception], str]] = {
    "a set": (lambda: set(make_params()), TypeError, r"ordered.*set"),
    "a set in a group": (lambda: [{"params": set(make_params())}], TypeError, r"ordered.*set"),
    "a tensor": (lambda: make_params()[0], TypeError, r"iterable of Tensors or dicts"),
    "numbers": (lambda: [1, 2], TypeError, r"must hold tensors, not int"),
    "a name": (lambda: [{"params": ["w"]}], TypeError, r"must hold tensors, not str"),
    "no params": (lambda: [{"lr": 0.1}], ValueError, r"needs the key 'params'"),
    "nothing": (lambda: [], ValueError, r"empty parameter list"),
    "a result": (lambda: [nn.Parameter(torch.ones(2, 2)) * 2], ValueError, r"non-leaf"),
    "twice": (lambda: [{"params": (p := make_params())}, {"params": p}], ValueError, r"more than"),
}


@pytest.mark.parametrize(("params", "error", "message"), PARAMETERS.values(), ids=PARAMETERS)
def test_what_is_no_list_of_parameters_is_refused(
    params: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MARSAdamW(params())


def test_added_group_must_be_a_dict() -> None:
    optimizer = MARSAdamW(make_params())
    with pytest.raises(TypeError, match=r"must be a dict, not list"):
        optimizer.add_param_group(make_params(seed=1))


@pytest.mark.parametrize("key", ["splits", "stackd", "lr_ration"])
def test_misspelt_keys_of_groups_alone_are_named(key: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown key '{key}'.*did you mean"):
        MARS([{"params": make_params(), key: 1.0}])


@pytest.mark.parametrize(
    "key", ["initial_lr", "max_lr", "lr_scale", "host_note", "use_fp8", "wd_ratio"]
)
def test_keys_of_hosts_are_no_misspellings(key: str) -> None:
    for group in MARS([{"params": make_params(), key: 1.0}]).param_groups:
        assert group[key] == 1.0
