"""Into production with a way back: AdamW, then MARS under a guard, with a fault put in.

A small GPT on bytes is trained by AdamW while its history is recorded, and saved. From that
checkpoint it goes on under MARS, watched by a guard. At step 260 the learning rate is multiplied
by 30, as a broken config might do. The guard notices, goes back to a snapshot from before, as
AdamW with its moments, and the run ends as if little had happened.

    python examples/guarded_run.py                 # the fault and the rescue
    python examples/guarded_run.py --fault none    # undisturbed
    python examples/guarded_run.py --guard off     # the fault without a guard
"""

import argparse
import json
import sysconfig
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mars_optim import BaselineRecorder, Guard, GuardSettings, migrate
from mars_optim.experiment.tasks import GPT

SWITCH, FAULT, END = 200, 260, 500
LR, CONTEXT, BATCH = 3e-3, 64, 8

options = argparse.ArgumentParser()
options.add_argument("--out", default=None, help="folder for the checkpoint and the guard's log")
options.add_argument("--fault", default="lr", choices=["lr", "none"])
options.add_argument("--guard", default="on", choices=["on", "off"])
args = options.parse_args()
out = Path(args.out or tempfile.mkdtemp())
out.mkdir(parents=True, exist_ok=True)

stdlib = Path(sysconfig.get_paths()["stdlib"])
text = b"\0".join((stdlib / name).read_bytes() for name in ("argparse.py", "typing.py", "ast.py"))
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
train, valid = data[:-20_000], data[-20_000:]


def windows(source: torch.Tensor, seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(source) - CONTEXT, (count,), generator=generator)
    return source[starts[:, None] + torch.arange(CONTEXT + 1)]


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def lr_at(step: int) -> float:
    """Warm-up, then linear decay to a tenth."""
    return LR * min((step + 1) / 50, 1.0 - 0.9 * step / END)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    for group in optimizer.param_groups:
        group["lr"] = lr_at(step) * (30.0 if faulty else 1.0)
    loss = loss_of(model, windows(train, seed=step, count=BATCH))
    optimizer.zero_grad()
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {"loss": loss.detach(), "grad_norm": grad_norm}


# Stage 0: AdamW, as ever, but its history is recorded
torch.manual_seed(0)
faulty = False
model = GPT(vocabulary=256, context=CONTEXT, layers=2, width=64, heads=2)
optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95))
recorder = BaselineRecorder(optimizer, keep=120)
for step in range(SWITCH):
    recorder.watch(**train_step(model, optimizer, step))
recorder.baseline().save(out / "baseline.json")
recorder.close()
torch.save({"model": model.state_dict(), "adamw": optimizer.state_dict()}, out / "adamw.pt")
print(f"step {SWITCH}  AdamW, validation loss {loss_of(model, windows(valid, 1, 64)).item():.4f}")

# Stage 3: from the checkpoint into MARS, under a guard
adamw = optimizer
model.load_state_dict(torch.load(out / "adamw.pt")["model"])
optimizer = migrate(out / "adamw.pt", model.parameters(), key="adamw")
guard = Guard(
    model,
    optimizer,
    adamw=adamw,
    baseline=out / "baseline.json",
    settings=GuardSettings(every=5, checkpoint_every=25),
    log=out / "guard.jsonl",
    step=SWITCH,
)
step = SWITCH
while step < END:
    faulty = args.fault == "lr" and step >= FAULT and not guard.rolled_back
    watched = train_step(model, optimizer, step)
    step += 1
    back = guard.watch(**watched, position={"seed": step}) if args.guard == "on" else None
    if back:
        optimizer, step = back.optimizer, back.step
        print(
            f"step {back.detected}  the guard saw {back.alarm.signal} {back.alarm.value:.2f} "
            f"(limit {back.alarm.limit:.2f}) since step {back.alarm.since} and went back to step "
            f"{back.step}: {type(optimizer).__name__}"
        )
if args.guard == "on":
    guard.finish()
loss = loss_of(model, windows(valid, 1, 64)).item()
print(f"step {step}  {type(optimizer).__name__}, validation loss {loss:.4f}")
print("events:")
if (out / "guard.jsonl").exists():
    for line in (out / "guard.jsonl").read_text().splitlines():
        event = json.loads(line)
        del event["time"]
        print(" ", json.dumps(event))
