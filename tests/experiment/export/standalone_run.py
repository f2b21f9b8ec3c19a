"""An exported file beside the library, step by step; prints where they differ. No kernels of ours.

The library is asked for foreach=True, and MARS_OPTIM_NATIVE=0 keeps it to torch's own calls, which
is what accelerators run.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import torch
from torch import nn

from mars_optim import create
from mars_optim.experiment.export.standalone import standalone

SHAPES = [(70, 41), (12, 90), (12, 90), (6, 4, 2, 2), (0, 3), (9,), ()]
STEPS, RESUMED = 200, 97
LONG = [(1100, 1000), (1000, 1100), (16, 16, 72, 72)]  # a norm is added up in pieces


def params(dtype: torch.dtype, long: bool = False) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = LONG if long else SHAPES
    drawn = [torch.randn(s, generator=generator).to(dtype) for s in shapes]
    if long:  # dense, in another order of memory
        drawn = [drawn[0], drawn[1].T, drawn[2].to(memory_format=torch.channels_last)]
    return [nn.Parameter(x) for x in drawn]


def give_gradients(of: list[nn.Parameter], t: int) -> None:
    """With a memory at first, so that gamma rises and falls; some are zero or missing."""
    weight = 0.7 if t < 80 else 0.25
    for i, param in enumerate(of):
        generator = torch.Generator().manual_seed(1000 * (t // 3) + i)
        slow = torch.randn(param.shape, generator=generator)
        generator = torch.Generator().manual_seed(7 + 1000 * t + i)
        fresh = torch.randn(param.shape, generator=generator)
        param.grad = ((weight * slow + fresh) * (0.1 if t % 4 else 1.0)).to(param.dtype)
    if t == 50:
        of[0].grad = torch.zeros_like(of[0])
    if t == 60:
        of[1].grad = None


def compared(name: str, gamma: Any, dtype: torch.dtype, *, long: bool = False) -> dict[str, Any]:
    """The first step at which a tensor differs, None for none; how many gammas there were."""
    text = standalone(name, gamma=gamma)
    scope: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, f"{name}.py", "exec"), scope)
    class_name = "".join(part.capitalize() for part in name.split("-"))
    (ours, theirs) = params(dtype, long), params(dtype, long)
    options: dict[str, Any] = {} if gamma is None else {"gamma": gamma}
    if isinstance(gamma, float):  # in the place of one that is chosen, too
        options["gamma_schedule"] = "constant"
    library = create(name, theirs, foreach=True, **options)
    optimizer = scope[class_name](ours)
    gammas: set[float] = set()
    for t in range(4 if long else STEPS):
        if t == RESUMED:  # the file goes on from what it has saved
            buffer = io.BytesIO()
            torch.save(optimizer.state_dict(), buffer)
            buffer.seek(0)
            optimizer = scope[class_name](ours)
            optimizer.load_state_dict(torch.load(buffer, weights_only=True))
        give_gradients(ours, t)
        give_gradients(theirs, t)
        optimizer.step()
        library.step()
        gammas.add(float(library.param_groups[0].get("gamma_now", 0.0)))
        if not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            return {"differs": t}
    moved = [not torch.equal(a, b) for a, b in zip(ours, params(dtype, long), strict=True)]
    return {"differs": None, "moved": sum(moved), "gammas": len(gammas)}


def main() -> None:
    """Each case of the JSON list on the command line: name, gamma or null, dtype."""
    torch.set_num_threads(1)
    found = {}
    for name, gamma, dtype in json.loads(sys.argv[1]):
        found[f"{name} {gamma} {dtype}"] = compared(name, gamma, getattr(torch, dtype))
    found["long"] = compared("mars-adamw", None, torch.float32, long=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
