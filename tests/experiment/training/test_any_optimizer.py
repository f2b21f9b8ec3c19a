"""An optimizer by its name, its source, and which parameters of a model it gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm
from mars_optim.experiment.training.any_optimizer import AnyOptimizer, find_optimizer
from mars_optim.experiment.training.contract.trial import has_modes, needs_closure, switch_mode
from mars_optim.experiment.training.optimizer import build_optimizer
from mars_optim.experiment.training.optimizer_routes import Beside, build_any, takes_kernels
from mars_optim.optim.transfer import Ratios
from tests.support import flawed_optimizers as flawed

OWN = """
import torch

class Own(torch.optim.SGD):
    pass

class Task:
    pass
"""


class Model(nn.Module):
    transfer: Ratios | None = None

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.convolution = nn.Conv1d(4, 4, 3)
        self.up = nn.Linear(4, 6)
        self.down = nn.Linear(6, 4)
        self.lm_head = nn.Linear(4, 7, bias=False)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def names_in(model: nn.Module, optimizer: Optimizer) -> set[str]:
    ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in ids}


def fill(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.1)


def test_a_class_is_found_in_a_module(tmp_path: Path):
    cls, source = find_optimizer("torch.optim:SGD", tmp_path)
    assert cls is torch.optim.SGD
    assert (source.package, source.version) == ("torch", torch.__version__)


def test_a_class_is_found_in_a_file_beside_the_plan(tmp_path: Path):
    (tmp_path / "own_optimizer.py").write_text(OWN)
    cls, source = find_optimizer("own_optimizer.py:Own", tmp_path)
    assert (cls.__name__, source.package) == ("Own", "")  # type: ignore[attr-defined]


def test_a_model_whose_settings_are_carried_refuses_it(model: Model):
    model.transfer = Ratios(width=2.0)
    with pytest.raises(
        UserError, match=r"arm\.mine\.optimizer = 'torch\.optim:SGD': no known rule"
    ):
        build_optimizer(model, Arm(optimizer="torch.optim:SGD", lr=0.1), lr=0.1, name="mine")


def test_a_changed_file_is_another_source(tmp_path: Path):
    file = tmp_path / "own_optimizer.py"
    file.write_text(OWN)
    _, before = find_optimizer("own_optimizer.py:Own", tmp_path)
    file.write_text(OWN + "\n# a thought\n")
    _, after = find_optimizer("own_optimizer.py:Own", tmp_path)
    assert before.sha256 != after.sha256


def test_any_file_of_its_package_is_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "zoo_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .own import Own")
    (package / "own.py").write_text(OWN)
    (package / "helper.py").write_text("factor = 1")
    monkeypatch.syspath_prepend(tmp_path)
    _, before = find_optimizer("zoo_package:Own", tmp_path)
    (package / "helper.py").write_text("factor = 2")
    _, after = find_optimizer("zoo_package:Own", tmp_path)
    assert before.module == "zoo_package.own"
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("SOAP", '"package.module:Class"'),
        ("torch.optim:", '"package.module:Class"'),
        ("no_such_package_here:SOAP", "install its package where mars runs"),
        ("absent.py:SOAP", "does not exist"),
        ("torch.optim:AdmW", "did you mean 'Adam"),
        ("torch.optim:adamw", "did you mean 'AdamW'?"),
        ("own_optimizer.py:Task", "is not a torch.optim.Optimizer"),
        ("leaves.py:SOAP", "cannot be imported"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(tmp_path: Path, source: str, words: str):
    (tmp_path / "own_optimizer.py").write_text(OWN)
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    with pytest.raises(UserError, match=r"arm\.soap\.optimizer") as caught:
        find_optimizer(source, tmp_path, "arm.soap.optimizer")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_optimizer_without_lr_is_refused():
    with pytest.raises(UserError, match="NoRate takes no lr"):
        AnyOptimizer(flawed.NoRate, 0.1)


@pytest.mark.parametrize("cls", [flawed.Faithful, flawed.TakesAnything])
def test_a_misspelt_option_is_told(cls: type[Optimizer]):
    with pytest.raises(UserError, match="did you mean 'weight_decay'"):
        AnyOptimizer(cls, 0.1, {"weight_decy": 0.1})


def test_what_its_constructor_says_is_handed_on(model: Model):
    chosen = AnyOptimizer(torch.optim.AdamW, 0.1, {"betas": (2.0, 0.9)}, key="arm.x")
    with pytest.raises(UserError, match=r"arm\.x: AdamW cannot be made: .*Invalid beta"):
        build_any(model, chosen, "all", lr=0.1)


def test_route_all_is_the_class_on_all_parameters(model: Model):
    made = build_any(model, AnyOptimizer(torch.optim.SGD, 0.1), "all", lr=0.2)
    assert len(made.param_groups) == 1
    assert made.param_groups[0]["lr"] == 0.2
    assert names_in(model, made) == {name for name, _ in model.named_parameters()}


def test_route_groups_decays_neither_vectors_nor_embeddings(model: Model):
    chosen = AnyOptimizer(torch.optim.AdamW, 0.1, {"weight_decay": 0.3})
    made = build_any(model, chosen, "groups", lr=0.1, lr_1d=0.01)
    decays = {name: g for g in made.param_groups for name in names_in(model, _only(g))}
    assert decays["embed.weight"]["weight_decay"] == 0
    assert decays["up.bias"]["weight_decay"] == 0
    assert decays["up.bias"]["lr"] == 0.01
    assert decays["up.weight"]["weight_decay"] == decays["lm_head.weight"]["weight_decay"] == 0.3


def test_a_default_decay_spares_vectors_and_embeddings(model: Model):
    made = build_any(model, AnyOptimizer(torch.optim.AdamW, 0.1), "groups", lr=0.1)
    decays = {
        name: g["weight_decay"] for g in made.param_groups for name in names_in(model, _only(g))
    }
    assert (decays["up.weight"], decays["up.bias"], decays["embed.weight"]) == (0.01, 0, 0)


def test_keys_of_groups_go_to_their_kind(model: Model):
    keys = {"matrix": {"momentum": 0.5}}
    made = build_any(model, AnyOptimizer(torch.optim.SGD, 0.1, {}, keys), "groups", lr=0.1)
    momenta = {name: g["momentum"] for g in made.param_groups for name in names_in(model, _only(g))}
    assert (momenta["up.weight"], momenta["up.bias"]) == (0.5, 0)


def test_keys_of_groups_need_groups(model: Model):
    chosen = AnyOptimizer(torch.optim.SGD, 0.1, {}, {"matrix": {"momentum": 0.5}})
    with pytest.raises(UserError, match="keys of groups need groups"):
        build_any(model, chosen, "all", lr=0.1)


def test_a_matrix_only_class_has_adamw_beside_it(model: Model):
    made = build_any(model, AnyOptimizer(torch.optim.Muon, 0.1), "matrices", lr=0.1, lr_1d=0.01)
    assert isinstance(made, Beside)
    muon, adamw = made.parts
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    assert names_in(model, muon) == {"up.weight", "down.weight"}
    assert names_in(model, made) == {name for name, _ in model.named_parameters()}
    assert {g["lr"] for g in adamw.param_groups} == {0.01}


def test_kernels_go_to_a_class_that_takes_them(model: Model):
    made = build_any(model, AnyOptimizer(flawed.Faithful, 0.1), "matrices", lr=0.1)
    assert isinstance(made, Beside)
    assert "convolution.weight" in names_in(model, made.parts[0])
    assert not takes_kernels(AnyOptimizer(torch.optim.Muon, 0.1))


def test_a_model_without_matrices_is_told():
    with pytest.raises(UserError, match="no matrix that Muon takes"):
        build_any(nn.LayerNorm(4), AnyOptimizer(torch.optim.Muon, 0.1), "matrices", lr=0.1)


def test_a_rate_written_into_the_groups_reaches_both(model: Model):
    made = build_any(model, AnyOptimizer(torch.optim.Muon, 0.1), "matrices", lr=0.1)
    for group in made.param_groups:
        group["lr"] = 0.0
    before = {name: p.clone() for name, p in model.state_dict().items()}
    fill(model)
    made.step()
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_two_beside_each_other_go_on_from_their_state(tmp_path: Path):
    models = [Model(), Model()]
    made = []
    for model in models:
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p)
        made.append(build_any(model, AnyOptimizer(torch.optim.Muon, 0.1), "matrices", lr=0.1))
    for _ in range(3):
        fill(models[0])
        made[0].step()
    torch.save((models[0].state_dict(), made[0].state_dict()), tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    models[1].load_state_dict(weights)
    made[1].load_state_dict(state)
    for model, optimizer in zip(models, made, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        fill(model)
        optimizer.step()
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(made[1].state) == set(models[1].parameters())


@pytest.mark.parametrize(
    ("cls", "needed"),
    [
        (torch.optim.LBFGS, True),
        (flawed.NeedsClosure, True),
        (flawed.Faithful, False),
        (flawed.NeedsGraph, False),
    ],
)
def test_who_needs_a_closure_is_found(cls: type[Optimizer], needed: bool):
    assert needs_closure(AnyOptimizer(cls, 0.05)) == needed


def test_modes_are_switched_where_they_are(model: Model):
    plain = torch.optim.SGD(model.parameters(), 0.1)
    switch_mode(plain, training=False)
    made = build_any(model, AnyOptimizer(flawed.Averages, 0.1), "all", lr=0.1)
    for _ in range(2):
        fill(model)
        made.step()
    trained = model.up.weight.clone()
    switch_mode(made, training=False)
    assert has_modes(made)
    assert not has_modes(plain)
    assert not torch.equal(trained, model.up.weight)
    switch_mode(made, training=True)
    assert torch.equal(trained, model.up.weight)


def _only(group: dict[str, object]) -> Optimizer:
    """For names_in: an optimizer of one group."""
    made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    made.param_groups = [group]
    return made


def test_a_class_of_named_parameters_is_given_their_names(model: Model):
    made = build_any(model, AnyOptimizer(flawed.TakesNames, 0.1), "all", lr=0.1)
    assert isinstance(made, flawed.TakesNames)
    assert made.names == [name for name, _ in model.named_parameters()]


def test_a_class_of_named_parameters_takes_no_groups(model: Model):
    with pytest.raises(UserError, match="takes named parameters, but not groups"):
        build_any(model, AnyOptimizer(flawed.TakesNames, 0.1), "groups", lr=0.1)


def test_a_source_is_told_in_a_line(tmp_path: Path):
    _, source = find_optimizer("torch.optim:SGD", tmp_path)
    assert str(source) == f"torch.optim.sgd, torch {torch.__version__}, sha256 {source.sha256}"
