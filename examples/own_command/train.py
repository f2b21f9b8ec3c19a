"""A training script for `mars pilot`: any program will do that takes these arguments.

It must train for --steps steps with a schedule of its own, decayed by the end, take all randomness
from --seed, and write its losses into --out, the last validation loss after the last step.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn

from mars_optim import MARSAdamW
from mars_optim.integrations.plain import RecordMetrics

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--gamma", type=float, default=0.0)  # from {arm_args}
parser.add_argument("--weight-decay", type=float, default=0.01)
args = parser.parse_args()

torch.manual_seed(0)  # the task, the same for all
teacher = torch.randn(16, 1)
x_valid = torch.randn(2048, 16)
y_valid = torch.tanh(x_valid @ teacher)

torch.manual_seed(args.seed)
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
if args.optimizer == "mars-adamw":
    optimizer = MARSAdamW(
        model.parameters(), lr=args.lr, gamma=args.gamma, weight_decay=args.weight_decay
    )
else:
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / args.steps)
record = RecordMetrics(args.out)  # writes metrics.jsonl
seconds = 0.0

for step in range(1, args.steps + 1):
    start = time.perf_counter()
    x = torch.randn(64, 16)
    y = torch.tanh(x @ teacher) + 0.1 * torch.randn(64, 1)
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    seconds += time.perf_counter() - start
    record(step=step, loss=loss.item(), tokens=64 * step, seconds=seconds)

with torch.no_grad():
    record(step=args.steps, valid_loss=nn.functional.mse_loss(model(x_valid), y_valid).item())
