"""The small checkpoint that the fine-tuning study continues: a Llama over bytes, on a text.

    python docs/studies/fine-tuning/checkpoint.py data/tinyshakespeare.txt studies/checkpoint

AdamW, 2,000 steps of 512 bytes, cosine decay to zero.
"""

import math
import sys

import torch
from tasks import Full

STEPS, LR = 2000, 4e-3


def main(text: str, out: str) -> None:
    """Train, tell the held-out loss, and save."""
    torch.set_num_threads(1)
    task = Full(text=text)
    model = task.build_model(0)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, step / 100) * (1 + math.cos(math.pi * step / STEPS)) / 2
        loss = task.loss(model, task.batch(0, step, 0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            print(step, round(loss.item(), 3), flush=True)
    print("held-out loss", round(task.evaluate(model, 2**16), 4))
    model.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
