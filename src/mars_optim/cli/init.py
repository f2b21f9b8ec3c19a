"""``mars init``: a plan, or an example of each way to bring a job of one's own."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..experiment.plan.plan_file import built_in_plan, plan_toml
from ..files import write_text

JOBS = ("task", "command", "finetune", "sft", "bandit")  # with a plan of their own

TEMPLATES = Path(__file__).parent / "templates"


def write_example(kind: str, folder: Path) -> str:
    """Write the files of one kind, of plan, runs or JOBS, into a folder.

    Returns:
        What to do next.

    Raises:
        UserError: if one is there already, or the folder cannot be written to.
    """
    if kind == "plan":
        texts = {"plan.toml": plan_toml(built_in_plan())}
    else:
        files = sorted(p for p in (TEMPLATES / kind).iterdir() if p.suffix in (".py", ".toml"))
        texts = {p.name: p.read_text(encoding="utf-8") for p in files}
    write_new({folder / name: text for name, text in texts.items()}, "another folder")
    written = " and ".join(str(folder / name) for name in texts)
    command = f"mars pilot --plan {folder / 'plan.toml'}"
    if kind == "runs":
        command = f"mars report --from {folder / 'runs.toml'}"
    return f"Wrote {written}. Edit, then run: {command}"


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
        write_new({target: plan_toml(built_in_plan(overrides))}, "another with --plan")
        return f"Wrote {target}. Edit it, then run: mars pilot {option}"
    if kind not in JOBS:
        raise UserError(f"--init {kind}: it must be plan, {', '.join(JOBS[:-1])} or {JOBS[-1]}")
    if plan or overrides:
        raise UserError(f"--init {kind} takes --out only; edit the plan that it writes")
    write_example(kind, out)
    return f"Wrote an example into {out}. Edit it, then run: mars pilot --out {out}"


def write_new(texts: dict[Path, str], way_out: str) -> None:
    """Write files that must not be there yet.

    Raises:
        UserError: naming the file.
    """
    for path in texts:
        if path.exists():
            raise UserError(f"{path} exists already; name {way_out}, or delete it")
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
