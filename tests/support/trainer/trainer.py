"""A training job without a framework: a loss by formula, in milliseconds, with faults on demand."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path


def loss_at(optimizer: str, lr: float, seed: int, steps: int, decay: float = 1.0) -> float:
    speed = {"ours": 1.5}.get(optimizer, 1.0)
    best = {"ours": 0.02}.get(optimizer, 0.01)
    distance = math.hypot(math.log2(lr / best), 0.5 * math.log2(decay))
    noise = 0.01 * math.sin(seed) + 0.0005 * math.sin(3 * seed + len(optimizer))
    return 1 + 5 * (speed * steps) ** -0.4 + 0.05 * distance**2 + noise


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--optimizer", "--lr", "--seed", "--steps", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--fault", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--decay", type=float, default=1.0)
    args = parser.parse_args()
    out, steps = Path(args.out), int(args.steps)
    given = args.optimizer, float(args.lr), int(args.seed)
    fault = args.fault if args.only in ("", args.optimizer) else ""
    print("training", args.optimizer, flush=True)
    if fault == "warm-up":  # of twelve steps, whatever the length
        print("share of the decay:", 1 / max(0, steps - 12))
    if fault == "child":
        (out / "child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    with (out / "metrics.jsonl").open("w") as file:

        def row(**values: float) -> None:
            file.write(json.dumps(values) + "\n")
            file.flush()

        for step in range(1, steps + 1):
            time.sleep(args.pause)
            if fault == "step-tokens":
                row(step=step, tokens=7)
            if fault == "gaps":  # every column in every row, as data frames write it
                row(step=step, loss=3.0, valid_loss=math.nan)
            row(step=step, loss=loss_at(*given, step, args.decay))
            if step == 5 and fault == "nan":
                row(step=step, loss=math.nan)
                time.sleep(600)
            if step == 5 and fault == "crash":
                sys.exit("no data on the disk")
            if step == 5 and fault == "exit-255":
                sys.exit(-1)
            if step == 5 and fault == "nan-crash":
                row(step=step, loss=math.nan)
                sys.exit("loss is nan")
            if step == 5 and fault == "memory":
                os.kill(os.getpid(), 9)
            if step == 5 and fault == "hang":
                time.sleep(600)
        if fault == "early":
            steps -= 3
        if fault != "no-valid":
            final = loss_at(*given, steps, args.decay)
            tokens = 7 if fault == "step-tokens" else 7 * steps
            row(step=steps, valid_loss=final, seconds=0.01 * steps, tokens=tokens)
        if fault.startswith("score"):
            row(step=steps, score=math.nan if fault == "score-nan" else 3 - 0.1 * int(args.seed))


main()
