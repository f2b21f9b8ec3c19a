"""A command's arms are tuned in whatever they take: start, range and placeholder are the plan's."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.analysis.design import points
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.command import fill_settings
from mars_optim.experiment.plan.plan_file import built_in_plan, make_plan, overrides, plan_toml
from mars_optim.experiment.plan.tuning import point, same_but_tuned, value_at

COMMAND = "{python} t.py {optimizer} {lr} {seed} {steps} {run_dir} --wd {decay} {arm_args}"
GIVEN: dict[str, Any] = {
    "arms": ["a", "b"],
    "task": {"kind": "command", "command": COMMAND},
    "comparison": {"baseline": "a", "candidate": "b"},
    "tuning": {
        "over": ["lr", "decay", "warm", "momentum"],
        "trials": 40,
        "range": {
            "lr": [0.125, 8.0],
            "decay": [0.1, 10.0],
            "warm": [0.25, 4.0],
            "momentum": [0.5, 2.0],
        },
        "arm": {"a": {"warm": [1.0, 1.0], "momentum": [1.0, 1.0]}, "b": {"decay": [0.5, 2.0]}},
    },
    "arm": {
        "a": {"lr": 1e-3, "settings": {"decay": 0.1}},
        "b": {
            "lr": 2e-3,
            "settings": {"decay": 0.3, "warm": 100, "momentum": 0.9},
            "arguments": "--warm {warm} --json {\"x\":1} --m {momentum}",
        },
    },
}  # fmt: skip


def plan_with(**changes: Any) -> Plan:
    """The plan above; keys are paths with ``__`` for dots, None takes one away."""
    import copy

    given = copy.deepcopy(GIVEN)
    for path, value in changes.items():
        *inner, last = path.split("__")
        at = given
        for key in inner:
            at = at.setdefault(key, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
    return make_plan(given)


def test_the_plan_is_read_back_equal():
    plan = plan_with()
    assert make_plan(tomllib.loads(plan_toml(plan))) == plan
    assert built_in_plan(tuple(overrides(plan))) == plan


def test_arms_have_the_same_places_in_their_own_ranges():
    plan = plan_with()
    mine, theirs = (points(plan.tuning, name, plan.arm[name]) for name in "ab")
    assert len(set(mine)) == len(set(theirs)) == 40
    assert (mine[0], theirs[0]) == (point(plan.arm["a"], {}), point(plan.arm["b"], {}))
    for at, other in zip(mine, theirs, strict=True):
        assert at.lr / 1e-3 == pytest.approx(other.lr / 2e-3, rel=1e-3)
        assert set(at.arm.settings) == {"decay"}
        assert 0.15 <= other.arm.settings["decay"] <= 0.6
        assert isinstance(other.arm.settings["warm"], int)
        assert 0.05 <= 1 - value_at(other, "momentum") <= 0.2


def test_a_trial_is_the_plans_arm_but_for_what_is_tuned():
    plan = plan_with()
    own = plan.arm["b"]
    at = points(plan.tuning, "b", own)[7]
    assert at.arm != own
    assert same_but_tuned(own, at.arm, plan.tuning.over)
    assert not same_but_tuned(own, at.arm, ["lr", "decay", "warm"])


MISTAKES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"tuning__over": ["lr", "dcay"]}, ("unknown 'dcay'", "did you mean 'decay'?")),
    ({"tuning__over": ["lr", "gamma"]}, ("unknown 'gamma'", "known: lr, decay", "settings")),
    ({"tuning__range__decay": None}, ("tuning.range.decay must be given", "[0.25, 4.0]")),
    ({"tuning__range__lr": None}, ("tuning.range.lr must be given",)),
    ({"tuning__arm__a__warm": [0.5, 2.0]}, ("a does not have", "set arm.a.settings.warm")),
    ({"arm__a__settings": {}}, ("uses {decay}", "arm.a has no value", "move {decay} into")),
    ({"arm__a__settings__other": 1.0}, ("arm.a.settings.other is not used", "{other}")),
    ({"arm__a__settings__decay": "big"}, ("arm.a.settings.decay = 'big' must be a number",)),
    ({"arm__a__settings__decay": True}, ("arm.a.settings.decay = True must be a number",)),
    ({"arm__a__settings__decay": 0.0}, ("decay", "has as 0", "arm.a.settings.decay")),
    ({"arm__a__settings__lr": 1.0}, ("arm.a.settings has the name 'lr'", "none of optimizer, lr")),
    ({"arm__a__settings__x-y": 1.0}, ("arm.a.settings has the name 'x-y'", "letters, digits")),
    ({"arm__b__settings__warm": 1}, ("whole number 1 leads to 0", "write 1.0")),
    ({"tuning__range__momentum": [0.5, 20.0]}, ("factors of 1 - momentum", "narrower")),
    ({"task__command": COMMAND + " {dcay}"}, ("unknown placeholder {dcay}", "'decay'?")),
]


@pytest.mark.parametrize(("changes", "told"), MISTAKES, ids=map(str, range(len(MISTAKES))))
def test_a_mistake_is_one_line(changes: dict[str, Any], told: tuple[str, ...]):
    with pytest.raises(UserError) as error:
        plan_with(**changes)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in told), text


def test_settings_are_of_commands_only():
    with pytest.raises(UserError, match=r"settings = .* needs optimizer = 'external'"):
        make_plan({"arm": {"adamw": {"settings": {"decay": 0.1}}}})


def test_settings_fill_their_own_braces_only():
    text = '--warm {warm} --json {"x":1} {unknown} {}'
    assert fill_settings(text, {"warm": 100, "x": 2.0}) == '--warm 100 --json {"x":1} {unknown} {}'


def test_runs_that_exist_are_not_tuned():
    with pytest.raises(UserError, match=r"tuning.over does not work with imported runs"):
        make_plan({"task": {"kind": "imported"}, "tuning": {"over": ["lr", "decay"]}})
