"""plain.py and one thing more: into MARS in the middle of an AdamW run, and back."""

import torch
from torch import nn

from mars_optim import migrate

torch.manual_seed(0)
x = torch.randn(256, 16)
y = torch.tanh(0.3 * x @ torch.randn(16, 1))
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

for step in range(200):
    if step == 70:
        optimizer = migrate(optimizer)  # moments and step counts are carried
    if step == 140:
        optimizer = migrate(optimizer, to="adamw")
    batch = torch.randint(len(x), (32,))
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == 199:
        print(f"step {step:3}  {type(optimizer).__name__:6}  loss {loss.item():.4f}")
