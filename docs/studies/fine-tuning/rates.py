"""AdamW against gamma="auto" at AdamW's own tuned rate and decay, and at multiples of it.

    python docs/studies/fine-tuning/rates.py studies/lora

Makes the runs beside the pilot's (those that are there already are not made again), writes
``rates.json`` into the pilot's folder and prints the table.
"""

import json
import sys
from pathlib import Path

from mars_optim.experiment.analysis.stats import t_interval
from mars_optim.experiment.plan import RunSpec
from mars_optim.experiment.plan.plan_file import load_plan
from mars_optim.experiment.records import RunWriter, read_runs
from mars_optim.experiment.tasks import import_task
from mars_optim.experiment.training import train

FACTORS = (0.5, 1.0, 2.0, 4.0)
ARMS = ("adamw", "nadamw-auto")


def main(pilot: Path) -> None:
    """Run, and tell."""
    plan = load_plan(pilot / "plan.toml")
    task = import_task(plan.task.source, Path(plan.task.folder))
    made = [*read_runs(pilot / "runs"), *read_runs(pilot / "rates")]
    known = {run.spec.run_id: run for run in made}
    compared = [r.spec for r in known.values() if r.spec.purpose == "compare"]
    lr = next(spec.lr for spec in compared if spec.arm_name == "adamw")  # tuned by the pilot
    losses: dict[str, list[float | None]] = {}
    for factor in FACTORS:
        for arm in ARMS:
            losses[f"{arm} x{factor:g}"] = []
            for seed in plan.comparison.seeds:
                spec = RunSpec(
                    purpose="compare",
                    arm_name=arm,
                    arm=plan.arm[arm],
                    lr=lr * factor,
                    seed=seed,
                    steps=plan.training.steps,
                    task=plan.task,
                    training=plan.training,
                    data=task.fingerprint,
                )
                run = known.get(spec.run_id)
                if run is None or run.outcome is None:
                    writer = RunWriter(pilot / "rates", spec, {})
                    outcome = train(spec, task, writer)
                    writer.finish(outcome)
                    loss = outcome.final_loss
                else:
                    loss = run.outcome.final_loss
                losses[f"{arm} x{factor:g}"].append(loss)
                print(spec.run_id, loss, file=sys.stderr, flush=True)
    (pilot / "rates.json").write_text(json.dumps({"lr": lr, "losses": losses}, indent=1) + "\n")
    print(table(losses))


def table(losses: dict[str, list[float | None]]) -> str:
    """A row for each multiple: both means, and the paired difference with its interval."""
    rows = ["| AdamW's rate times | AdamW | auto | auto less AdamW (95 %) |", "|---|---|---|---|"]
    for factor in FACTORS:
        pair = [losses[f"{arm} x{factor:g}"] for arm in ARMS]
        known = [(a, b) for a, b in zip(*pair, strict=True) if a is not None and b is not None]
        gap = t_interval([b - a for a, b in known], 0.95)
        means = [sum(values) / len(known) for values in zip(*known, strict=True)]
        ends = f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        rows.append(f"| {factor:g} | {means[0]:.4f} | {means[1]:.4f} | {ends} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
