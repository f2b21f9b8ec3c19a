"""plain.py and one thing more: the exact form in a hand-written loop, with accumulation."""

import torch
from torch import nn

from mars_optim import MARSAdamW

torch.manual_seed(0)
x = torch.randn(256, 16)
y = torch.tanh(0.3 * x @ torch.randn(16, 1))
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 1))
optimizer = MARSAdamW(model.parameters(), lr=0.01, weight_decay=0.01, correction="exact")

for step in range(200):
    optimizer.zero_grad()
    total = 0.0
    for _ in range(2):
        batch = torch.randint(len(x), (16,))
        with optimizer.previous_point():  # first: the same batch, the same dropout mask
            (nn.functional.mse_loss(model(x[batch]), y[batch]) / 2).backward()
        loss = nn.functional.mse_loss(model(x[batch]), y[batch]) / 2
        loss.backward()
        total += loss.item()
    optimizer.step()
    if step % 50 == 0 or step == 199:
        print(f"step {step:3}  loss {total:.4f}")
