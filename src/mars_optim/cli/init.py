"""``mars init``: a plan, or an example of each way to bring a job of one's own."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomlkit
from rich.console import Console

from ..errors import UserError
from ..experiment.plan.plan_file import built_in_plan, override, plan_toml
from ..files import write_text
from .questions import Answers, ask_all

JOBS = ("task", "command", "finetune", "sft", "bandit")  # with a plan of their own
ARGUMENTS = ("--optimizer", "--lr", "--seed", "--steps", "--out")  # of a training script

TEMPLATES = Path(__file__).parent / "templates"


def write_example(kind: str, folder: Path, script: str | None = None) -> str:
    """Write the files of one kind, of plan, runs or JOBS, into a folder.

    Args:
        kind: of job.
        folder: to write into.
        script: with "command", a training script of the user's in place of the example; in the
            folder, or else in the current one.

    Returns:
        What to do next.

    Raises:
        UserError: if one is there already, or the folder cannot be written to.
    """
    return _written(Answers(kind=kind, script=script or ""), folder)


def ask_and_write(console: Console, folder: Path, script: str | None = None) -> str:
    """Ask what is trained, then write it; nothing is written before the last answer.

    Args:
        console: the terminal to ask on.
        folder: to write into.
        script: a training script of the user's, if it is known already.

    Returns:
        What to do next.

    Raises:
        UserError: as :func:`write_example`.
        SystemExit: 130 after Ctrl-C or the end of the input.
    """
    try:
        answers = ask_all(console, folder, script)
    except (KeyboardInterrupt, EOFError):
        console.print("\nStopped. Nothing was written.")
        raise SystemExit(130) from None
    return _written(answers, folder)


def _written(answers: Answers, folder: Path) -> str:
    if answers.script:
        answers = replace(answers, script=_seen_from(folder, answers.script))
    texts = texts_of(answers)
    write_new({folder / name: text for name, text in texts.items()}, _way_out(answers, folder))
    written = " and ".join(str(folder / name) for name in texts)
    if answers.kind == "runs":
        return f"Wrote {written}. Edit, then run: mars report --from {folder / 'runs.toml'}"
    plan = shlex.quote(str(folder / "plan.toml"))
    lines = [f"Wrote {written}. Edit, then run: mars pilot --plan {plan}"]
    lines.append(f"Before that, `mars plan --plan {plan}` says how long it takes.")
    if answers.script:
        lines += _script_lines(folder, answers.script)
    return "\n".join(lines)


def _seen_from(folder: Path, script: str) -> str:
    """The script as the command finds it, which runs in the plan's folder."""
    path = Path(script)
    if (folder / path).is_file() or not path.is_file():
        return script
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())


def _way_out(answers: Answers, folder: Path) -> str:
    if answers.kind == "command" and not answers.script and (folder / "train.py").exists():
        return (
            "if it is your training script, `mars init command --script train.py` writes a plan "
            "for it; for the example name another folder, such as mars init command example"
        )
    return "name another folder, or delete it"


def texts_of(answers: Answers) -> dict[str, str]:
    """Text of each file, by its name."""
    if answers.kind == "plan":
        return {"plan.toml": plan_toml(built_in_plan(answers.settings))}
    files = sorted(p for p in (TEMPLATES / answers.kind).iterdir() if p.suffix in (".py", ".toml"))
    texts = {p.name: p.read_text(encoding="utf-8") for p in files}
    if answers.script:
        del texts["train.py"]
        texts["plan.toml"] = texts["plan.toml"].replace(
            "{python} train.py", f"{{python}} {shlex.quote(answers.script)}"
        )
        texts["plan.toml"] = texts["plan.toml"].replace("train.py?", f"{answers.script}?")
    if "plan.toml" in texts:
        texts["plan.toml"] = _with_answers(texts["plan.toml"], answers)
    return texts


def _with_answers(text: str, answers: Answers) -> str:
    """The template with the answers in it; its comments stay.

    A command's plan has a table for each of its two arms.
    """
    if not answers.settings:
        return text
    plan: Any = tomlkit.parse(text)
    for setting in answers.settings:
        override(plan, setting)
    old_and_new = (("adamw", answers.baseline), ("mars-adamw", answers.candidate))
    if answers.kind == "command":
        tables_of = {old: plan["arm"].pop(old) for old, _ in old_and_new}
        for old, new in old_and_new:
            plan["arm"][new] = tables_of[old]
    return tomlkit.dumps(plan)


def _script_lines(folder: Path, script: str) -> list[str]:
    """Lines on the arguments that a training script must take and the files that it must write."""
    try:
        text = (folder / script).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [
            f"{folder / script} is not there yet; `mars init command example` writes an example."
        ]
    missing = [name for name in ARGUMENTS if f'"{name}"' not in text and f"'{name}'" not in text]
    lines = []
    if missing:
        lines.append(f"{script} must also take {', '.join(missing)}.")
    if "RecordMetrics" not in text and "metrics.jsonl" not in text:
        lines.append(f"{script} must write its losses to metrics.jsonl in the folder --out.")
    if lines:
        lines.append("`mars init command example` writes a script that does; docs/your-job.md.")
    return lines


def init_pilot(kind: str, plan: Path | None, out: Path, overrides: tuple[str, ...]) -> str:
    """Write a plan where the pilot looks for it, or an example (``mars pilot --init``).

    Args:
        kind: "plan" or one of JOBS.
        plan: the file to write, if it is not ``plan.toml`` in ``out``.
        out: folder of the pilot, into which an example goes.
        overrides: as given to ``--set``.

    Raises:
        UserError: for another kind, or files that are there already.
    """
    target, option = plan or out / "plan.toml", f"--plan {plan}" if plan else f"--out {out}"
    if kind == "plan":
        write_new({target: plan_toml(built_in_plan(overrides))}, "name another with --plan")
        return f"Wrote {target}. Edit it, then run: mars pilot {option}"
    if kind not in JOBS:
        raise UserError(f"--init {kind} must be plan, {', '.join(JOBS[:-1])} or {JOBS[-1]}")
    if plan or overrides:
        raise UserError(f"--init {kind} takes no option but --out: edit the plan that it writes")
    write_example(kind, out)
    return f"Wrote an example into {out}. Edit it, then run: mars pilot --out {out}"


def write_new(texts: dict[Path, str], way_out: str) -> None:
    """Write files that must not be there yet: all of them or none.

    Raises:
        UserError: naming the file.
    """
    for path in texts:
        if path.exists():
            raise UserError(f"{path} exists already; {way_out}")
    written: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written.append(path)
            write_text(path, text)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{written[-1] if written else path} cannot be written: {error.strerror}"
            ) from None
        raise
