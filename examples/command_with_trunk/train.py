"""A training script that can go on from a state of another run, for `mars pilot` with trunks.

It trains up to step --steps: after a warm-up of a fixed number of steps at constant rate, the last
--decay-steps of them with a linear decay. It saves the whole state (weights, optimizer, random
numbers) after each of --save-steps. If --init-from names such a state it begins there, counts steps
and tokens on, and does what a run without an interruption would have done.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

from mars_optim import MARSAdamW
from mars_optim.integrations.plain import RecordMetrics

WARMUP = 20  # steps, whatever --steps is: all runs of a trunk begin alike

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--init-from", default="")
parser.add_argument("--decay-steps", type=int, required=True)
parser.add_argument("--save-steps", default="")
parser.add_argument("--gamma", type=float, default=0.0)  # from {arm_args}
args = parser.parse_args()
save_steps = {int(step) for step in args.save_steps.split(",") if step}

torch.manual_seed(0)  # the task, the same for all
teacher = torch.randn(16, 1)
x_valid = torch.randn(2048, 16)
y_valid = torch.tanh(x_valid @ teacher)

torch.manual_seed(args.seed)
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
if args.optimizer == "mars-adamw":
    optimizer = MARSAdamW(model.parameters(), lr=args.lr, gamma=args.gamma)
else:
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
first = 1
if args.init_from:
    state = torch.load(args.init_from)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    first = state["step"] + 1
record = RecordMetrics(args.out)  # writes metrics.jsonl
seconds = 0.0

for step in range(first, args.steps + 1):
    start = time.perf_counter()
    left = (args.steps - step + 1) / args.decay_steps if args.decay_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = args.lr * min(1.0, step / WARMUP, left)
    x = torch.randn(64, 16)
    y = torch.tanh(x @ teacher) + 0.1 * torch.randn(64, 1)
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seconds += time.perf_counter() - start
    record(step=step, loss=loss.item(), tokens=64 * step, seconds=seconds)
    if step in save_steps:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": step,
        }
        torch.save(state, args.out / f"step-{step}")

with torch.no_grad():
    record(step=args.steps, valid_loss=nn.functional.mse_loss(model(x_valid), y_valid).item())
