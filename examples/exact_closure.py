"""plain.py and one thing more: the exact form by a closure, which is called twice a step."""

import torch
from torch import Tensor, nn

from mars_optim import MARSAdamW

torch.manual_seed(0)
x = torch.randn(256, 16)
y = torch.tanh(0.3 * x @ torch.randn(16, 1))
model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 1))
optimizer = MARSAdamW(model.parameters(), lr=0.01, weight_decay=0.01, correction="exact")

for step in range(200):
    batch = torch.randint(len(x), (32,))

    def closure(batch: Tensor = batch) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[batch]), y[batch])
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    if step % 50 == 0 or step == 199:
        print(f"step {step:3}  loss {loss.item():.4f}")

assert int(model[1].num_batches_tracked) == 200  # statistics are updated once a batch
