"""Runs of the pretended trainer."""

from __future__ import annotations

from pathlib import Path

from mars_optim.experiment.external.command_run import Command
from mars_optim.experiment.plan import Arm, RunSpec
from mars_optim.experiment.plan.plan import TrainingPlan
from mars_optim.experiment.plan.table import KeywordTable
from mars_optim.experiment.plan.task import CommandPlan
from mars_optim.experiment.records import Run, RunWriter, read_run

FOLDER = Path(__file__).parent / "trainer"
COMMAND = (
    "{python} trainer.py --optimizer {optimizer} --lr {lr} --seed {seed} --steps {steps} "
    "--out {run_dir}"
)


def task_with(extra: str = "", **options: object) -> CommandPlan:
    return CommandPlan(
        command=f"{COMMAND} {extra}".strip(),
        folder=str(FOLDER),
        **options,  # type: ignore[arg-type]
    )


def spec_of(
    task: CommandPlan,
    *,
    arm: str = "ours",
    steps: int = 20,
    arguments: str = "",
    settings: dict[str, float] | None = None,
) -> RunSpec:
    return RunSpec(
        purpose="compare",
        arm_name=arm,
        arm=Arm(
            optimizer="external",
            lr=0.01,
            arguments=arguments,
            settings=KeywordTable(settings or {}),
        ),
        lr=0.01,
        seed=1,
        steps=steps,
        task=task,
        training=TrainingPlan(),
        data="",
    )


def run(out: Path, task: CommandPlan, **options: object) -> Run:
    """One run, read back."""
    spec = spec_of(task, **options)  # type: ignore[arg-type]
    writer = RunWriter(out / "runs", spec, {})
    try:
        writer.finish(Command(task, out, 1).run(spec, writer)[0])
    finally:
        writer.close()
    return read_run(writer.path)
