"""plain.py and one thing more: an optimizer of your own choice becomes a MARS."""

import torch
from torch import nn

from mars_optim import variance_reduce

torch.manual_seed(0)
x = torch.randn(256, 16)
y = torch.tanh(0.3 * x @ torch.randn(16, 1))
model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
handle = variance_reduce(optimizer, gamma=0.025)

for step in range(200):
    batch = torch.randint(len(x), (32,))
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == 199:
        print(f"step {step:3}  loss {loss.item():.4f}")

handle.remove()  # plain SGD again, its momentum kept
