"""Eight arms on a GPT of 34 M parameters on one GPU, in calls of nine minutes.

An estimate, not measured on a GPU: a token costs 6 N + 12 layers width context = 226 MFLOP, a step
of 32,768 tokens 7.4 TFLOP. At 40 % of an H100's 989 TFLOP/s its matrix products take 19 ms; the
logits (1 GB in bfloat16, four or five times through memory), the float32 residual stream and the
normalisations another 8 ms; fused AdamW, 28 bytes a parameter, 0.4 ms. So about 1.1 M tokens a
second: a short run of 20 M tokens takes 18 s, a long one of 101 M 90 s. Three calls of nine minutes
are 1620 s; less three starts with torch.compile (a minute each) and the timing (half a minute)
1400 s: 20 short runs (370 s), then two seeds of the first six arms (540 s each). The two with
other betas begin after that: 150 s for their short runs, 180 s a seed. Newton-Schulz adds 0.3 TFLOP
to Muon's step, 4 %. Model and batch need some 15 GB of the GPU's memory.

Everything is in one process, so torch.compile is paid once a call: a second model of the same shape
takes the graph of the first. Where it does not work, the study goes on without it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .. import output
from ..output import UserError
from . import STARTED, state
from .plan import load
from .report import report
from .runs import Limit
from .study import RESERVE, go_on


def main(argv: list[str]) -> None:
    """Prepare, run or report."""
    args = _parser().parse_args(argv)
    args.act(args)


def _prepare(args: argparse.Namespace) -> None:
    from .text import prepare  # what it imports is not on the machine with the GPU

    prepare(
        args.data, load().task.vocabulary, package=args.package, deb=args.deb, wheels=args.wheels
    )


def _run(args: argparse.Namespace) -> None:
    if not args.rehearse and not torch.cuda.is_available():
        raise UserError(
            f"no CUDA GPU here (torch {torch.__version__}): nothing is trained; --rehearse goes "
            "through everything with a tiny model on a CPU"
        )
    if not 0 < args.minutes <= 1440:
        raise UserError(f"--minutes {args.minutes:g} must be above 0 and at most 1440")
    plan = load(rehearse=args.rehearse)
    limit = Limit(STARTED + 60 * args.minutes - (0 if args.rehearse else RESERVE))
    scratch = args.scratch or args.out / "under-way"
    go_on(plan, args.data, args.out, scratch=scratch, limit=limit, rehearsal=args.rehearse)
    print(f"\n{report(state.read(args.out))}")


def _report(args: argparse.Namespace) -> None:
    print(report(state.read(args.out)))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_study.sh", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = made.add_subparsers(required=True)
    one = verbs.add_parser("prepare", help="text and wheels for a machine without network")
    one.add_argument("data", type=Path, metavar="DATA", help="folder to write")
    one.add_argument("--package", default="linux-source-6.1", help="(default: %(default)s)")
    one.add_argument("--deb", type=Path, help="the package's file, if it is here already")
    one.add_argument("--no-wheels", dest="wheels", action="store_false", help="the text alone")
    one.set_defaults(act=_prepare)
    two = verbs.add_parser("run", help="train until the minutes are up")
    two.add_argument("data", type=Path, metavar="DATA", help="folder that prepare wrote")
    two.add_argument("out", type=Path, metavar="OUT", help="folder of study.json")
    two.add_argument("--minutes", type=float, default=9.0, help="(default: %(default)s)")
    two.add_argument("--scratch", type=Path, help="for checkpoints (default: OUT/under-way)")
    two.add_argument("--rehearse", action="store_true", help="tiny, on a CPU, for tests")
    two.set_defaults(act=_run)
    three = verbs.add_parser("report", help="study.json as Markdown")
    three.add_argument("out", type=Path, metavar="OUT", help="folder of study.json")
    three.set_defaults(act=_report)
    return made


if __name__ == "__main__":
    output.run(main)
