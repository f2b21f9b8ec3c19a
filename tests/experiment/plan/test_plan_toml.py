"""A plan written as TOML is read back equal, whatever is in it."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Arm, Plan
from mars_optim.experiment.plan.comparison import ComparisonPlan
from mars_optim.experiment.plan.cost import CostPlan
from mars_optim.experiment.plan.plan import ARMS, TrainingPlan
from mars_optim.experiment.plan.plan_file import differences, load_plan, make_plan, plan_toml
from mars_optim.experiment.plan.table import concerned
from mars_optim.experiment.plan.task import GptPlan, PythonPlan
from mars_optim.experiment.plan.tuning import TuningPlan
from mars_optim.files import write_text


def read_back(plan: Plan, overrides: tuple[str, ...] = ()) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.toml"
        write_text(path, plan_toml(plan))
        return load_plan(path, overrides)


def plan_with(**options: Any) -> Plan:
    """A plan of two arms, the first the baseline."""
    arms = options.pop("arms", ("adamw", "mars-adamw"))
    comparison = ComparisonPlan(baseline=arms[0], candidate=arms[1])
    return Plan(**{"arms": arms, "comparison": comparison, **options})


def test_the_built_in_plan_is_read_back_equal():
    assert read_back(Plan()) == Plan()


@pytest.mark.parametrize("name", ARMS)
def test_a_plan_with_any_arm_as_candidate_is_read_back_equal(name: str):
    baseline = "adamw" if name != "adamw" else "nadamw"
    plan = plan_with(arms=(baseline, name))
    assert read_back(plan) == plan
    assert read_back(plan).arm[name] == ARMS[name]


def test_a_plan_of_all_arms_is_read_back_equal():
    plan = Plan(arms=tuple(ARMS))
    assert read_back(plan) == plan


@pytest.mark.parametrize("name", ARMS)
def test_arm_table_may_give_only_changes_to_its_defaults(name: str):
    baseline = "adamw" if name != "adamw" else "nadamw"
    plan = make_plan(
        {
            "arms": [baseline, name],
            "comparison": {"baseline": baseline, "candidate": name},
            "arm": {name: {"weight_decay": 0.7}},
        }
    )
    assert plan.arm[name] == replace(ARMS[name], weight_decay=0.7)
    assert plan.arm[baseline] == ARMS[baseline]
    assert read_back(plan) == plan


OVERRIDES: list[tuple[str, Any]] = [
    ("training.steps=400", lambda p: p.training.steps == 400),
    ("training.decay=cosine", lambda p: p.training.decay == "cosine"),
    ('training.decay="cosine"', lambda p: p.training.decay == "cosine"),
    (" training.warmup = 0 ", lambda p: p.training.warmup == 0.0),
    ("task.corpus=/some/folder", lambda p: p.task.corpus == "/some/folder"),
    ("task.corpus=a=b", lambda p: p.task.corpus == "a=b"),
    ("comparison.seeds=[7, 8]", lambda p: p.comparison.seeds == (7, 8)),
    ("comparison.ladder=[0.25, 2, 4]", lambda p: p.comparison.ladder == (0.25, 2.0, 4.0)),
    ("tuning.max_trials=9", lambda p: p.tuning.max_trials == 9),
    ("decision.min_saving=-0.1", lambda p: p.decision.min_saving == -0.1),
    ("cost.currency=EUR", lambda p: p.cost.currency == "EUR"),
    ("arm.mars-adamw.lr=1e-2", lambda p: p.arm["mars-adamw"] == replace(Arm(), lr=0.01)),
    ('arms=["adamw", "mars-adamw"]', lambda p: list(p.arm) == ["adamw", "mars-adamw"]),
]


@pytest.mark.parametrize(("text", "holds"), OVERRIDES, ids=[text for text, _ in OVERRIDES])
def test_an_override_changes_its_key_only_and_survives_the_file(text: str, holds: Any):
    plan = make_plan({}, (text,))
    assert holds(plan)
    key = text.partition("=")[0].strip()
    changed = [line.partition(":")[0] for line in differences(Plan(), plan)]
    assert changed
    assert all(c == key or (key == "arms" and c.startswith("arm")) for c in changed)
    assert read_back(plan) == plan


def test_last_override_wins_over_earlier_ones_and_the_file():
    plan = read_back(
        plan_with(training=TrainingPlan(steps=50)),
        ("training.steps=60", "tuning.trials=2", "training.steps=70"),
    )
    assert (plan.training.steps, plan.tuning.trials) == (70, 2)


def test_an_empty_file_is_the_built_in_plan(tmp_path: Path):
    (tmp_path / "plan.toml").write_text("# nothing\n")
    assert load_plan(tmp_path / "plan.toml") == Plan()


def test_every_key_of_the_file_stands_under_its_comment():
    lines = plan_toml(Plan()).splitlines()
    for made in (GptPlan(), TrainingPlan(), TuningPlan(), ComparisonPlan(), CostPlan(), Arm()):
        said = (f for f in fields(made) if not f.metadata.get("sparse"))
        for f in filter(lambda f, made=made: concerned(f, made), said):
            i = next(i for i, line in enumerate(lines) if line.startswith(f"{f.name} = "))
            assert lines[i - 1] == f"# {f.metadata['description']}"


def test_plan_file_holds_every_setting_of_every_arm():
    written = tomllib.loads(plan_toml(Plan()))["arm"]
    assert list(written) == list(Plan().arms)
    for name, table in written.items():
        assert set(table) == {f.name for f in fields(Arm) if concerned(f, ARMS[name])}


numbers = st.floats(min_value=1e-9, max_value=1e22)
rates = st.floats(min_value=1e-9, max_value=1e6)
small = st.floats(min_value=0.0, max_value=0.9)
whole = st.integers(min_value=10, max_value=10**12)


@given(steps=whole, warmup=small, lr=rates, decay=numbers, low=small, high=numbers, data=st.data())
def test_any_numbers_are_read_back_equal(
    steps: int, warmup: float, lr: float, decay: float, low: float, high: float, data: Any
):
    seeds = data.draw(st.lists(st.integers(1, 2**70), min_size=2, max_size=9, unique=True))
    plan = Plan(
        training=TrainingPlan(steps=steps, warmup=warmup),
        comparison=ComparisonPlan(seeds=tuple(seeds), ladder=(0.5, 2.0 + warmup)),
        cost=CostPlan(price_per_hour=decay, planned_hours=high),
        arm={"mars-adamw": Arm(lr=lr, weight_decay=decay, betas=(low, warmup))},
    )
    assert read_back(plan) == plan


@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_any_text_is_read_back_equal(text: str):
    plan = Plan(task=GptPlan(corpus="a" + text), cost=CostPlan(currency=text))
    assert read_back(plan) == plan


@pytest.mark.parametrize(
    "name", ["ours", "our-arm_2", "our arm", "v1.5", 'a "quoted" arm', "größer", "ω"]
)
def test_custom_arm_of_any_name_is_read_back_equal_or_refused(name: str):
    data = {
        "arms": ["adamw", name],
        "comparison": {"candidate": name},
        "arm": {name: {"rule": "lion", "lr": 1e-4}},
    }
    try:
        plan = make_plan(data)
    except UserError as error:
        assert name in str(error)  # noqa: PT017
        return
    assert read_back(plan) == plan
    assert plan.arm[name] == Arm(rule="lion", lr=1e-4)


def test_differences_name_each_key_with_both_values_or_are_empty():
    plan = Plan(
        training=TrainingPlan(steps=77),
        comparison=ComparisonPlan(seeds=(1, 2, 3, 4, 5, 6)),
    )
    assert differences(plan, plan) == []
    assert differences(Plan(), plan) == [
        "comparison.seeds: [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]",
        "training.steps: 1200, 77",
    ]


def test_a_budget_is_rounded_to_whole_steps_and_never_to_none():
    plan = plan_with(training=TrainingPlan(steps=10))
    assert [plan.sizes()[0].steps(b) for b in (1.0, 0.5, 0.26, 1e-9)] == [10, 5, 3, 1]


def test_a_written_plan_becomes_another_kind_by_one_key():
    written = tomllib.loads(plan_toml(Plan()))
    plan = make_plan(written, ("task.kind=python", "task.source=job.py:Job"))
    assert plan == Plan(task=PythonPlan(source="job.py:Job"))
    written["task"]["layers"] = 3
    with pytest.raises(UserError, match=r"task\.layers = 3 needs kind = 'gpt', not"):
        make_plan(written, ("task.kind=python", "task.source=job.py:Job"))
