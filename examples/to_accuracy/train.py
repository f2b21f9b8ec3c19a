"""A classifier for `mars pilot`: it writes its accuracy fifty times a run, under any name.

The plan beside it decides by the tokens to an accuracy of 0.75. The validation loss need not be
written: where another metric decides, it is shown if it is there.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from mars_optim import MARSAdamW
from mars_optim.integrations.plain import RecordMetrics

CLASSES, INPUTS, BATCH, EVALUATIONS = 8, 32, 64, 50

parser = argparse.ArgumentParser()
parser.add_argument("--optimizer", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
args = parser.parse_args()

torch.manual_seed(0)  # the task, the same for all
teacher = torch.randn(INPUTS, CLASSES)


def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy vectors, and the class that a fixed network gives them."""
    x = torch.randn(count, INPUTS)
    return x, (torch.tanh(x) @ teacher).argmax(dim=1)


x_valid, y_valid = draw(4096)
torch.manual_seed(args.seed)
model = nn.Sequential(nn.Linear(INPUTS, 64), nn.GELU(), nn.Linear(64, CLASSES))
make = MARSAdamW if args.optimizer == "mars-adamw" else torch.optim.AdamW
optimizer = make(model.parameters(), lr=args.lr)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / args.steps)
record = RecordMetrics(args.out)  # writes metrics.jsonl
every = max(1, args.steps // EVALUATIONS)

for step in range(1, args.steps + 1):
    x, y = draw(BATCH)
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    record(step=step, loss=loss.item())
    if step % every == 0 or step == args.steps:
        with torch.no_grad():
            logits = model(x_valid)
        right = (logits.argmax(dim=1) == y_valid).float().mean()
        valid = nn.functional.cross_entropy(logits, y_valid)
        record(step=step, valid_loss=valid.item(), accuracy=right.item())
