"""Installable optimizers through the pilot's contract check: the table of docs/optimizer-zoo.md."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import multiprocessing
import re
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docs.zoo.defects import outcomes
from mars_optim.errors import UserError
from mars_optim.experiment.training.any_optimizer import AnyOptimizer, find_optimizer
from mars_optim.experiment.training.contract import check_optimizer

from . import output, table

PAGE = Path("docs/optimizer-zoo.md")
RESULTS = Path("docs/zoo/results.json")
SECONDS = 150  # for one optimizer, its imports too


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer to try.

    Args:
        source: as a plan names it.
        lr: of the trials: its package's default, or what suits the tiny problem.
        options: its further arguments.
        groups: keys of its parameter groups, by kind.
        matrices: whether it is made for matrices only.
    """

    source: str
    lr: float = 1e-2
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    matrices: bool = False


def _names(module: str, names: str, **settings: Any) -> list[Entry]:
    return [Entry(f"{module}:{name}", **settings) for name in names.split()]


ZOO: list[Entry] = [
    *_names("torch.optim", "AdamW Adam NAdam RAdam SGD Adafactor Adagrad Rprop ASGD"),
    Entry("torch.optim:Muon", matrices=True),
    *_names("pytorch_optimizer", "SOAP Adan ADOPT AdEMAMix Kron MARS LaProp StableAdamW CAME"),
    *_names("pytorch_optimizer", "ScheduleFreeAdamW SophiaH AdaHessian Tiger Grams SCION"),
    Entry("pytorch_optimizer:Lion", lr=1e-3),
    Entry("pytorch_optimizer:Prodigy", lr=1.0),
    Entry(
        "pytorch_optimizer:Muon",
        groups={"matrix": {"use_muon": True}, "vector": {"use_muon": False}},
    ),
    *_names("heavyball", "AdamW SOAP PSGDKron LaProp ADOPT"),
    Entry("heavyball:Muon"),
    *_names("schedulefree", "AdamWScheduleFree SGDScheduleFree RAdamScheduleFree"),
    *_names("optimi", "AdamW StableAdamW Adan", options={"triton": False}),
    Entry("optimi:Lion", lr=1e-3, options={"triton": False}),
    *_names("bitsandbytes.optim", "AdamW AdamW8bit"),
    Entry("bitsandbytes.optim:Lion8bit", lr=1e-3),
    *_names("torchao.optim", "AdamW8bit AdamW4bit AdamWFp8"),
    *_names("timm.optim.mars", "Mars"),
    *_names("timm.optim.adopt", "Adopt"),
    *_names("timm.optim.muon", "Muon"),
    Entry("timm.optim.lion:Lion", lr=1e-3),
    Entry("lion_pytorch:Lion", lr=1e-3),
    Entry("prodigyopt:Prodigy", lr=1.0),
    Entry("prodigyplus:ProdigyPlusScheduleFree", lr=1.0),
    Entry("dadaptation:DAdaptAdam", lr=1.0),
    *_names("adan_pytorch", "Adan"),
    *_names("came_pytorch", "CAME"),
    *_names("apollo_torch", "APOLLOAdamW"),
    *_names("adam_mini", "Adam_mini"),
    *_names("dion", "Muon NorMuon Dion Dion2", matrices=True),
    *_names("emerging_optimizers.orthogonalized_optimizers", "Muon Scion PolarGrad", matrices=True),
    *_names("emerging_optimizers.legacy_soap", "SOAP", matrices=True),
    Entry("torch.optim:LBFGS", lr=0.1),
]


def importable() -> None:
    """Let timm's optimizers be imported without torchvision; what they compute is the same."""
    spec = importlib.util.find_spec("timm")
    if spec is not None and spec.submodule_search_locations:
        for name in ("timm", "timm.optim"):  # without their __init__, which wants torchvision
            package = types.ModuleType(name)
            parts = name.split(".")[1:]
            package.__path__ = [str(Path(spec.submodule_search_locations[0], *parts))]
            sys.modules[name] = package


def tried(entry: Entry) -> dict[str, Any]:
    """One optimizer's result, as plain data."""
    importable()
    try:
        cls, source = find_optimizer(entry.source, Path())
    except UserError as error:
        return {"absent": _without_paths(str(error))}
    began = time.perf_counter()
    chosen = AnyOptimizer(cls, entry.lr, entry.options, entry.groups)
    found = check_optimizer(chosen, matrices_only=entry.matrices)
    return {
        "package": source.package or source.module.partition(".")[0],
        "version": source.version or "from source",
        "sha256": source.sha256,
        "seconds": round(time.perf_counter() - began, 1),
        "flaws": [{**dataclasses.asdict(f), "text": _without_paths(f.text)} for f in found],
    }


def in_a_process(entry: Entry) -> dict[str, Any]:
    """The same in a process of its own, so that none disturbs the next."""
    context = multiprocessing.get_context("fork")  # torch is loaded once
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(entry, send))
    child.start()
    send.close()
    try:
        if not receive.poll(SECONDS):
            return {"absent": f"not done in {SECONDS} s"}
        result: dict[str, Any] = receive.recv()
        return result
    except EOFError:
        child.join()
        return {"absent": f"its process ends with {child.exitcode}"}
    finally:
        child.kill()
        child.join()


def _send(entry: Entry, pipe: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            result = tried(entry)
        except Exception as error:
            result = {"absent": _without_paths(f"{type(error).__name__}: {error}")}
    pipe.send(result)


def page(
    text: str, results: dict[str, dict[str, Any]], defects: Sequence[tuple[str, str, str, str]] = ()
) -> str:
    """The page with its tables made anew.

    Args:
        text: of the page.
        results: by optimizer.
        defects: package, script, sentence and state of each.
    """
    rows, texts = [], dict[str, tuple[str, list[str]]]()
    for source, result in results.items():
        if "absent" in result:
            rows.append([f"`{source}`", "-", "not tried", result["absent"]])
            continue
        blocking: list[str] = []
        beside: list[str] = []
        for f in result["flaws"]:
            (blocking if "blocks" in f["severity"] else beside).append(f["name"])
            texts.setdefault(f["name"], (f["text"], []))[1].append(source)
        version = f"{result['package']} {result['version']}"
        rows.append([f"`{source}`", version, "; ".join(blocking) or "-", "; ".join(beside) or "-"])
    header = ["optimizer", "package", "blocks the arm", "printed beside the result"]
    parts = {
        "zoo": _left(table.markdown(header, rows)),
        "sentences": "\n".join(
            f"- **{name}** ({len(where)}): {said}" for name, (said, where) in sorted(texts.items())
        ),
    }
    if defects:
        rows = [[f"`{script}`", where, said, state] for where, script, said, state in defects]
        head = ["script", "package", "what it shows", "when last run"]
        parts["defects"] = _left(table.markdown(head, rows))
    return output.between_markers(text, {name: f"\n{part}\n" for name, part in parts.items()})


def _left(markdown: str) -> str:
    return markdown.replace("---:", "---")


def _without_paths(text: str) -> str:
    """No folders of this machine."""
    return re.sub(r"\s*\(?(/[\w.+-]+){2,}(, line \d+\))?", " (a path)", text)


def main(argv: list[str]) -> None:
    """Try them, and make the page's tables."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizer_zoo", description=__doc__
    )
    options.add_argument("--only", nargs="*", default=[], help="pieces of names")
    args = options.parse_args(argv)
    by_name = {entry.source: entry for entry in ZOO}
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in output.chosen(list(by_name), args.only):
        results[name] = in_a_process(by_name[name])
        found = results[name].get("absent") or [f["name"] for f in results[name]["flaws"]]
        print(f"{name}: {found}", flush=True)
        ordered = {n: results[n] for n in by_name if n in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    shown = outcomes()
    PAGE.write_text(page(PAGE.read_text(), ordered, shown))


if __name__ == "__main__":
    output.run(main)
