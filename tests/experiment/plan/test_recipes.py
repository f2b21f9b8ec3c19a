"""Every recipe is a plan with the published settings, and says what was published and what not."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import (
    differences,
    load_plan,
    make_plan,
    overrides,
    plan_toml,
)
from mars_optim.experiment.tasks import GPT
from mars_optim.experiment.tasks.resnet import ResNet18
from tests.support.paths import ROOT

FOLDER = ROOT / "recipes"
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
GPT2 = [name for name in RECIPES if name.startswith("gpt2")]

# as published: layers, heads, width, parameters, least rate; rates of AdamW, Muon (and of the
# AdamW beside it), MARS-AdamW (and of vectors), and of MARS-M on OpenWebText and FineWeb-Edu
SIZES: dict[str, tuple[Any, ...]] = {
    "small": (12, 12, 768, 125e6, 3e-5, 6e-4, (2e-2, 3e-3), (6e-3, 3e-3), (6e-3, 1e-2)),
    "medium": (24, 16, 1024, 355e6, 6e-5, 3e-4, (1e-2, 1.5e-3), (3e-3, 1.5e-3), (5e-3, 5e-3)),
    "large": (36, 20, 1280, 770e6, 1e-5, 2e-4, (6.67e-3, 1e-3), (2e-3, 1e-3), (5e-3, 5e-3)),
    "xl": (48, 25, 1600, 1.5e9, 1e-5, 2e-4, None, (2e-3, 1e-3), (None, 3e-3)),
}
LOSSES = {
    "gpt2-small-openwebtext": {
        "adamw": 2.885,
        "muon": 2.901,
        "mars-adamw": 2.849,
        "mars-adamw-exact": 2.847,
        "moonlight": 2.849,
        "mars-m": 2.842,
    },
    "gpt2-medium-openwebtext": {
        "adamw": 2.691,
        "muon": 2.688,
        "mars-adamw": 2.636,
        "moonlight": 2.643,
        "mars-m": 2.633,
    },
    "gpt2-large-openwebtext": {
        "adamw": 2.568,
        "muon": 2.606,
        "mars-adamw": 2.511,
        "mars-lion": 2.534,
        "moonlight": 2.538,
        "mars-m": 2.533,
    },
    "gpt2-small-fineweb-edu": {"adamw": 2.899, "moonlight": 2.869, "mars-m": 2.858},
    "gpt2-medium-fineweb-edu": {},
    "gpt2-large-fineweb-edu": {},
    "gpt2-xl-fineweb-edu": {"adamw": 2.449, "moonlight": 2.433, "mars-m": 2.419},
}

# (loss, accuracy) on CIFAR-10 and on CIFAR-100, as in the paper's Table 9
CIFAR = {
    "adamw": ((0.230, 94.81), (1.726, 73.70)),
    "lion": ((0.245, 94.68), (1.351, 74.28)),
    "muon": ((0.306, 95.08), (2.608, 74.64)),
    "mars-adamw": ((0.199, 95.29), (0.971, 76.97)),
    "mars-adamw-exact": ((0.193, 95.26), (0.888, 77.38)),
    "mars-lion": ((0.202, 95.05), (0.985, 75.97)),
    "mars-lion-exact": ((0.219, 94.98), (0.991, 76.15)),
    "mars-shampoo": ((0.202, 94.92), (1.256, 74.80)),
    "mars-shampoo-exact": ((0.194, 94.98), (0.982, 75.83)),
}


def plan_named(name: str) -> Plan:
    return load_plan(RECIPES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_plan_that_is_read_back_equal(name: str):
    plan = plan_named(name)
    assert make_plan(tomllib.loads(plan_toml(plan))) == plan
    assert plan.recipe.title
    assert plan.recipe.source
    assert plan.recipe.notes


@pytest.mark.parametrize("name", RECIPES)
def test_every_arm_says_what_was_published_or_that_nothing_was(name: str):
    plan = plan_named(name)
    assert set(plan.published) == set(plan.arms)
    for entry in plan.published.values():
        known = entry.loss is not None or entry.accuracy is not None
        assert known == (entry.source != "not published")


@pytest.mark.parametrize("name", GPT2)
def test_the_published_losses_are_these_and_no_others(name: str):
    published = plan_named(name).published
    assert {a: p.loss for a, p in published.items() if p.loss is not None} == LOSSES[name]


@pytest.mark.parametrize("name", GPT2)
def test_the_arms_have_the_published_settings(name: str):
    plan, (_, size, data) = plan_named(name), name.split("-", 2)
    layers, heads, width, _, min_lr, adamw, muon, mars, mars_m = SIZES[size]
    assert (plan.task.layers, plan.task.heads, plan.task.width) == (layers, heads, width)
    assert (plan.training.min_lr, plan.training.decay) == (min_lr, "cosine")
    arm = plan.arm
    assert (arm["adamw"].lr, arm["adamw"].betas, arm["adamw"].weight_decay) == (
        adamw,
        (0.9, 0.95),
        0.1,
    )
    assert (arm["mars-adamw"].lr, arm["mars-adamw"].lr_1d) == mars
    if muon:
        assert (arm["muon"].lr, arm["muon"].lr_1d, arm["muon"].weight_decay) == (*muon, 0.0)
    else:
        assert plan.published["muon"].settings == "ours"
    assert arm["mars-adamw"].betas == (0.95, 0.99)
    assert (arm["mars-adamw"].gamma, arm["mars-adamw"].weight_decay) == (0.025, 0.01)
    assert arm["mars-m"].lr == arm["moonlight"].lr == mars_m[data == "fineweb-edu"]
    assert (arm["mars-m"].weight_decay, arm["mars-m"].lr_1d) == (0.1, None)


@pytest.mark.parametrize("name", GPT2)
def test_what_was_not_published_is_marked_as_ours_to_tune(name: str):
    plan = plan_named(name)
    ours = {arm for arm, entry in plan.published.items() if entry.settings == "ours"}
    unknown = {"mars-lion"}
    if name == "gpt2-xl-fineweb-edu":
        unknown |= {"muon"}
    elif name in ("gpt2-medium-fineweb-edu", "gpt2-large-fineweb-edu"):
        unknown |= {"adamw", "muon", "mars-adamw"}
    assert ours == unknown


@pytest.mark.parametrize("name", GPT2)
def test_a_step_has_480_windows_and_the_run_49_15_billion_tokens(name: str):
    task, training = plan_named(name).task, plan_named(name).training
    assert task.batch * training.accumulation == 480
    assert task.batch * training.reference_accumulation * 8 == 480  # on the authors' 8 GPUs
    step = 480 * task.context
    assert step == 491_520
    assert training.steps * step / 1e9 == pytest.approx(49.15, abs=0.005)
    assert round(training.warmup * training.steps) == 2000


@pytest.mark.parametrize("name", GPT2)
def test_the_model_has_the_published_number_of_parameters(name: str):
    """The published names are rounded: 125M is 124.4 M, 355M 354.6 M, 770M 773.6 M, 1.5B 1.557."""
    task, size = plan_named(name).task, name.split("-")[1]
    assert (task.vocabulary, task.init, task.bias) == (50304, "gpt2", False)
    assert task.scale_attention_by_layer
    with torch.device("meta"):
        model = GPT(
            vocabulary=task.vocabulary,
            context=task.context,
            layers=task.layers,
            width=task.width,
            heads=task.heads,
            bias=task.bias,
            init=task.init,
        )
    count = sum(p.numel() for p in model.parameters())
    layers, _, width, published, *_ = SIZES[size]
    matrices = 12 * layers * width**2
    assert count == (50304 + 1024) * width + matrices + (2 * layers + 1) * width
    assert count == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize(("i", "classes"), [(0, 10), (1, 100)])
def test_cifars_arms_have_the_published_losses_and_accuracies(i: int, classes: int):
    plan = plan_named(f"resnet18-cifar{classes}")
    published = {arm: (p.loss, p.accuracy) for arm, p in plan.published.items()}
    assert published == {arm: values[i] for arm, values in CIFAR.items()}
    assert {p.settings for p in plan.published.values()} == {"ours"}
    exact = {name for name, arm in plan.arm.items() if arm.correction == "exact"}
    assert exact == {name for name in CIFAR if name.endswith("-exact")}
    for name, arm in plan.arm.items():
        if name.startswith("mars"):
            assert (arm.betas, arm.gamma, arm.lr_1d) == ((0.95, 0.99), 0.025, 0.003)
            assert arm.rule == name.split("-")[1]


@pytest.mark.parametrize("classes", [10, 100])
def test_cifars_run_is_200_epochs_of_the_published_schedule(classes: int):
    plan = plan_named(f"resnet18-cifar{classes}")
    task, training = plan.task, plan.training
    assert (task.kind, task.batch, task.width, task.augment) == ("images", 128, 64, True)
    assert training.steps * task.batch == 200 * 50_000
    assert (training.decay, training.warmup, training.grad_clip) == ("step", 0.0, 0.0)
    with torch.device("meta"):
        count = sum(p.numel() for p in ResNet18(classes, task.width).parameters())
    assert count == 11_168_832 + 513 * classes  # as kuangliu's and the authors' ResNet-18


def test_paper_lr_times_decay_is_equal_for_adamw_and_mars():
    for size in ("small", "medium", "large"):
        arm = plan_named(f"gpt2-{size}-openwebtext").arm
        products = [arm[a].lr * arm[a].weight_decay for a in ("adamw", "mars-adamw")]
        assert products[0] == pytest.approx(products[1])


@pytest.mark.parametrize("version", [2, 0, "1", 1.5])
def test_recipe_of_another_version_is_refused_before_its_keys(version: object):
    data = {"recipe": {"version": version, "key_of_the_future": 1}, "another": {}}
    with pytest.raises(UserError, match=f"recipe.version = {version!r}, and this mars-optim reads"):
        make_plan(data)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"published": {"adam": {"source": "a"}}}, "published.adam is not among arms"),
        ({"published": {"adamw": {"loss": 2.0}}}, "published.adamw needs the key 'source'"),
        ({"ours": {"adamw": {"loss": 2.0, "date": "today"}}}, "ours.adamw needs the key 'machine'"),
        ({"published": {"adamw": {"los": 2.0}}}, "did you mean 'published.adamw.loss'"),
        ({"published": {"adamw": {"accuracy": 101.0}}}, "accuracy = 101.0 must be at most 100"),
        ({"training": {"min_lr": 1.0}}, "training.min_lr = 1 must be below arm.adamw.lr"),
        (
            {"training": {"min_lr": 1e-5, "decay": "step"}},
            "training.min_lr = 1e-05 needs decay = 'linear' or 'cosine' or 'wsd'",
        ),
        (
            {"training": {"convention": "code"}},
            "training.convention = 'code' must be 'paper'",
        ),
        ({"arm": {"adamw": {"betas_1d": [0.5, 0.5]}}}, "arm.adamw.betas_1d = [0.5, 0.5] needs"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_by_its_key(tables: dict[str, Any], message: str):
    with pytest.raises(UserError) as error:
        make_plan(tables)
    assert message in str(error.value)


def test_arms_chosen_by_set_drop_what_the_file_says_of_others():
    path = RECIPES["gpt2-small-openwebtext"]
    plan = load_plan(path, ('arms=["adamw", "mars-adamw"]', "arm.adamw.lr=1e-3"))
    assert set(plan.arm) == set(plan.published) == {"adamw", "mars-adamw"}
    assert plan.arm["adamw"].lr == 1e-3
    with pytest.raises(UserError, match=r"arm\.muon is not among arms"):
        load_plan(path, ('arms=["adamw", "mars-adamw"]', "arm.muon.lr=1e-3"))


def test_a_recipes_words_are_no_part_of_what_its_runs_are():
    plan = plan_named("gpt2-small-openwebtext")
    bare = make_plan({k: v for k, v in tomllib.loads(plan_toml(plan)).items() if k != "recipe"})
    assert bare.training == plan.training
    assert bare.arm == plan.arm
    assert all(d.startswith("recipe.") for d in differences(plan, bare))


def test_a_plan_without_a_recipe_is_written_without_its_tables():
    text = plan_toml(Plan())
    assert not any(f"[{table}" in text for table in ("recipe", "published", "ours"))


def test_numbers_that_are_not_there_are_left_out_of_the_file():
    plan = make_plan({"published": {"adamw": {"source": "not published"}}})
    assert "loss" not in tomllib.loads(plan_toml(plan))["published"]["adamw"]
    assert plan.published["adamw"].loss is None


SMALL = RECIPES["gpt2-small-openwebtext"]


@pytest.mark.parametrize(
    ("sets", "changed"),
    [
        ((), []),
        (("task.corpus=elsewhere", "training.evaluations=7", "cost.devices=8"), []),
        (("task.batch=30", "training.accumulation=16"), []),
        (
            ("task.batch=30",),
            ["task.batch = 30 (recipe: 15)"],
        ),
        (("training.steps=400",), ["training.steps = 400 (recipe: 100000)"]),
        (
            ("training.convention=reference_code",),
            ['training.convention = "reference_code" (recipe: "paper")'],
        ),
        (
            ('arms=["adamw", "mars-adamw"]', "arm.adamw.lr=0.001"),
            ["arm.adamw.lr = 0.001 (recipe: 0.0006)"],
        ),
    ],
)
def test_where_a_plan_departs_from_its_recipe_is_written_down(
    sets: tuple[str, ...], changed: list[str]
):
    plan = load_plan(SMALL, sets)
    assert list(plan.recipe.changed) == changed
    assert make_plan(tomllib.loads(plan_toml(plan))).recipe.changed == tuple(changed)


def test_departures_of_a_departed_plan_are_those_of_both(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(plan_toml(load_plan(SMALL, ("training.steps=400",))))
    again = load_plan(path, ("task.layers=2",)).recipe.changed
    assert [text.split(" =")[0] for text in again] == ["training.steps", "task.layers"]


def test_set_values_of_a_plan_leave_out_what_its_recipe_tells():
    sets = overrides(load_plan(SMALL, ("training.steps=400",)))
    assert "training.steps=400" in sets
    assert not any(text.startswith(("recipe.", "published.", "ours.")) for text in sets)
