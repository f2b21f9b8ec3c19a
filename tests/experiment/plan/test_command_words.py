"""A command's placeholders are checked before the first run and filled in without a shell."""

from __future__ import annotations

import pytest

from mars_optim.errors import UserError
from mars_optim.experiment.plan.command import check_command, fill_command, fixed_words
from mars_optim.experiment.plan.plan_file import make_plan

GOOD = "train --optimizer {optimizer} --lr {lr} --seed {seed} --steps {steps} --out {run_dir}"
VALUES = {
    "optimizer": "adamw",
    "lr": "0.001",
    "seed": "1",
    "steps": "20",
    "run_dir": "/a b/'c",
    "arm_args": "--beta2 0.99 --name 'two words'",
    "python": "/usr/bin/python",
}

MISTAKES = [
    ("", ["task.command is empty", "python train.py --optimizer {optimizer}"]),
    (GOOD + " {learning_rate}", ["unknown placeholder {learning_rate}", "known: optimizer, lr"]),
    (GOOD + " {step}", ["unknown placeholder {step}", "did you mean 'steps'?", "{{ and }}"]),
    (GOOD.replace("{lr}", "0.1"), ["task.command lacks {lr}"]),
    (GOOD.replace("{seed}", "0").replace("{steps}", "9"), ["lacks {seed}, {steps}"]),
    (GOOD.replace("{optimizer}", "adamw"), ["lacks {optimizer}"]),
    (GOOD.replace("{run_dir}", "/tmp"), ["lacks {run_dir}"]),
    (GOOD.replace("{lr}", "{lr:.3f}"), ["write {lr} without a format"]),
    (GOOD + " --x={arm_args}", ["{arm_args} must be a word of its own", "--x={arm_args}"]),
    (GOOD + " 'open", ["cannot be split into words", "quotation"]),
    (GOOD + " }", ["misplaced brace"]),
    (GOOD + " {}", ["unknown placeholder {}"]),
]


@pytest.mark.parametrize(("command", "parts"), MISTAKES, ids=[p[0] for _, p in MISTAKES])
def test_a_mistake_in_the_command_gives_one_line(command: str, parts: list[str]):
    with pytest.raises(UserError) as error:
        check_command(command)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_each_value_is_one_word_but_arm_arguments_are_several():
    check_command(GOOD + " {arm_args}")
    words = fill_command(GOOD + " 'a b' --set={lr} {{x}} {arm_args}", VALUES)
    assert words[:3] == ["train", "--optimizer", "adamw"]
    assert (
        words[9:]
        == [
            "--out",
            "/a b/'c",
            "a b",
            "--set=0.001",
            "{x}",
            "--beta2",
            "0.99",
            "--name",
            "two words",
        ][: len(words) - 9]
    )
    assert len(words) == 18


def test_words_without_a_placeholder_are_the_same_in_every_run():
    assert fixed_words("a --lr {lr} 'b c' {{d}}") == ["a", "--lr", "b c", "{d}"]


COMMAND = {"kind": "command", "command": GOOD}
COMPARED = {"baseline": "adamw", "candidate": "mine"}
MINE = {"arms": ["adamw", "mine"], "task": COMMAND, "comparison": COMPARED}


def test_command_arm_may_have_any_name_with_a_first_lr():
    plan = make_plan({**MINE, "arm": {"mine": {"lr": 0.5, "arguments": "--a b"}}})
    assert plan.arm["mine"].optimizer == plan.arm["adamw"].optimizer == "external"
    assert (plan.arm["mine"].lr, plan.arm["adamw"].lr) == (0.5, 1e-3)
    assert plan.arm["mine"].arguments == "--a b"


PLAN_MISTAKES = [
    (MINE, "unknown arm 'mine'"),
    ({**MINE, "arm": {"mine": {}}}, r"arm\.mine needs the key 'lr'"),
    (
        {**MINE, "arm": {"mine": {"lr": 1, "gamma": 0.1}}},
        r"arm\.mine\.gamma = 0\.1 needs optimizer = 'torch-adamw' or .* not",
    ),
    (
        {**MINE, "arm": {"mine": {"lr": 1, "optimizer": "mars"}}},
        r"arm\.mine\.optimizer = 'mars' does not go with task\.kind = 'command'",
    ),
    ({**MINE, "arm": {"mine": {"lr": 1, "arguments": "'"}}}, r"arm\.mine\.arguments = .* split"),
    (
        {"arm": {"adamw": {"optimizer": "external", "weight_decay": 0.01}}},
        r"arm\.adamw\..* needs|does not go with task\.kind = 'gpt'",
    ),
    ({"task": {"command": GOOD}}, r"task\.command = .* needs kind = 'command', not"),
    ({"task": {"kind": "command", "width": 8, "command": GOOD}}, r"task\.width = 8 needs kind"),
    ({"task": {"kind": "comand"}}, r"task\.kind = 'comand' must be .* did you mean 'command'"),
    ({"task": {"kind": "python"}}, r"task\.source = '' must be 'my_task\.py:MyTask'"),
    ({"task": {"kind": "python", "source": "my_task.py"}}, r"task\.source = 'my_task\.py' must be"),
    ({"task": {**COMMAND, "metrics": "/tmp/x"}}, r"task\.metrics = '/tmp/x' must be a file in"),
    (
        {"task": COMMAND, "training": {"warmup": 0.2}},
        r"training\.warmup is not passed to the command",
    ),
]


@pytest.mark.parametrize(("data", "message"), PLAN_MISTAKES, ids=[m for _, m in PLAN_MISTAKES])
def test_a_plan_that_asks_a_job_for_what_it_cannot_do_is_refused(data: dict, message: str):
    with pytest.raises(UserError, match=message) as error:
        make_plan(data)
    assert "\n" not in str(error.value)
