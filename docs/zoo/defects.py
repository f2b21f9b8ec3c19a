"""Findings of the zoo's checks, each in the fewest lines that show it; true as far as it runs.

``python -m docs.zoo.defects`` runs all of them. Where a thing may be meant so, the text says it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

DEFECTS: list[tuple[str, str, Callable[[], bool]]] = []


def defect(package: str, text: str) -> Callable[[Callable[[], bool]], Callable[[], bool]]:
    """Put a script on the list.

    Args:
        package: whose it is.
        text: what it shows, in a sentence.
    """

    def keep(script: Callable[[], bool]) -> Callable[[], bool]:
        DEFECTS.append((package, text, script))
        return script

    return keep


def parameter(*shape: int) -> nn.Parameter:
    """Ones, with a gradient of ones."""
    made = nn.Parameter(torch.ones(shape))
    made.grad = torch.ones(shape)
    return made


def moved(optimizer: Any, *parameters: nn.Parameter, steps: int = 1) -> list[float]:
    """How far each goes."""
    before = [p.detach().clone() for p in parameters]
    for _ in range(steps):
        optimizer.step()
    return [float((p.detach() - b).norm()) for p, b in zip(parameters, before, strict=True)]


@defect(
    "torch", "Rprop takes lr as its first step size only: a schedule that writes lr does nothing."
)
def rprop_lr() -> bool:
    """Meant so: the step sizes adapt themselves."""
    ends = []
    for factor in (1.0, 0.5):
        p = parameter(4, 4)
        optimizer = torch.optim.Rprop([p], lr=0.01)
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= factor
        ends.append(moved(optimizer, p, steps=3))
    return ends[0] == ends[1]


@defect("torch", "ASGD uses an lr that is written into its groups one step late.")
def asgd_lr() -> bool:
    """Its step size for the next step is computed at the end of each."""
    p, q = parameter(4, 4), parameter(4, 4)
    one, other = torch.optim.ASGD([p], lr=0.1), torch.optim.ASGD([q], lr=0.1)
    one.step()
    other.step()
    other.param_groups[0]["lr"] = 0.01
    first = moved(one, p) == moved(other, q)
    second = moved(one, p) == moved(other, q)
    return first and not second


@defect(
    "pytorch_optimizer",
    "Prodigy steps all groups at the first group's lr: lr = 0 in another group does not freeze it.",
)
def prodigy_group_lr() -> bool:
    """prodigyopt, its origin, raises for two different rates that are not 0."""
    from pytorch_optimizer import Prodigy

    p, q = parameter(4, 4), parameter(4, 4)
    optimizer = Prodigy([{"params": [p], "lr": 1.0}, {"params": [q], "lr": 0.0}])
    return moved(optimizer, p, q, steps=3)[1] > 0


@defect(
    "pytorch_optimizer",
    "A misspelt argument is taken without a word: its classes have **kwargs that nobody reads.",
)
def any_keyword() -> bool:
    """Here of SOAP."""
    from pytorch_optimizer import SOAP

    SOAP([parameter(4, 4)], weight_decya=0.1)
    return True


@defect(
    "pytorch_optimizer",
    "ADOPT counts the steps of a group, not of a parameter: a parameter whose gradient comes later "
    "has no first step that only measures, and is divided by eps.",
)
def adopt_late() -> bool:
    """Its clip (step ** 0.25) keeps that within bounds."""
    from pytorch_optimizer import ADOPT

    p, late = parameter(4, 4), parameter(4, 4)
    late.grad = None
    optimizer = ADOPT([p, late], lr=0.01)
    first = moved(optimizer, p)[0]
    late.grad = torch.ones(4, 4)
    return first == 0.0 and moved(optimizer, late)[0] > 0.0


@defect(
    "heavyball",
    "mars_correction(g, old_g, beta1, gamma) is called with gamma and beta1 the other way round: "
    "the factor is beta1 gamma / (1 - gamma) where the paper's is gamma beta1 / (1 - beta1).",
)
def heavyball_mars() -> bool:
    """By our reading of the paper; the factor is recorded out of a step of AdamW(mars=True)."""
    import heavyball

    given: list[tuple[float, float]] = []
    original = heavyball.utils.mars_correction
    names = list(inspect.signature(original).parameters)

    def record(g: Any, old: Any, third: float, fourth: float) -> None:
        given.append((float(third), float(fourth)))
        original(g, old, third, fourth)

    heavyball.utils.mars_correction = record
    try:
        p = parameter(8, 8)
        optimizer = heavyball.AdamW([p], lr=0.01, betas=(0.9, 0.99), mars=True, mars_gamma=0.025)
        moved(optimizer, p, steps=2)
    finally:
        heavyball.utils.mars_correction = original
    return names[2:] == ["beta1", "gamma"] and given[-1] == (0.025, 0.9)


@defect(
    "apollo_torch",
    "APOLLOAdamW on plain parameters is AdamW, without a word: only groups with rank are APOLLO.",
)
def apollo_plain() -> bool:
    """Its README gives groups with rank; a plan that forgets them compares AdamW with itself."""
    from apollo_torch import APOLLOAdamW

    p, q = parameter(8, 8), parameter(8, 8)
    one = moved(APOLLOAdamW([p], lr=0.01), p, steps=3)[0]
    other = moved(torch.optim.AdamW([q], lr=0.01, eps=1e-6, weight_decay=0.0), q, steps=3)[0]
    return abs(one / other - 1) < 1e-3


@defect("adan_pytorch", "The first gradient is left out: the first step moves nothing.")
def adan_first() -> bool:
    """The moments are filled from the second step on."""
    from adan_pytorch import Adan

    p = parameter(4, 4)
    return moved(Adan([p], lr=0.01), p) == [0.0]


@defect(
    "optimi",
    "With triton installed and no GPU its default (triton=None) fails in the first step: "
    "pass triton=False.",
)
def optimi_triton() -> bool:
    """Fails with "0 active drivers"."""
    importlib.import_module("triton")
    from optimi import StableAdamW

    p = parameter(4, 4)
    try:
        StableAdamW([p], lr=0.01).step()
    except RuntimeError as error:
        return "active drivers" in str(error)
    return False


@defect("timm", "timm.optim cannot be imported without torchvision, which no optimizer needs.")
def timm_import() -> bool:
    """timm/__init__.py imports the models."""
    try:
        importlib.import_module("timm.optim")
    except ImportError as error:
        return "torchvision" in str(error)
    return False


def writes_gradient(make: Callable[..., Any], **keys: Any) -> bool:
    """Whether a step leaves other numbers in p.grad."""
    p = parameter(8, 8)
    optimizer = in_training(make([{"params": [p], **keys}]))
    for scale in (1.0, 2.0, 3.0):
        given = scale * torch.linspace(-1, 1, 64).reshape(8, 8)
        p.grad = given.clone()
        optimizer.step()
    return p.grad is not None and not torch.equal(p.grad, given)


def takes_gradient_away(make: Callable[..., Any]) -> bool:
    """Whether a step leaves p.grad = None."""
    p = parameter(8, 8)
    make([p]).step()
    return p.grad is None


def in_training(optimizer: Any) -> Any:
    """After its train(), where it has that."""
    getattr(optimizer, "train", lambda: None)()
    return optimizer


def moves_at_zero(make: Callable[..., Any]) -> bool:
    """Whether a step at lr = 0 moves a parameter."""
    p = parameter(8, 8)
    optimizer = in_training(make([p]))
    moved(optimizer, p, steps=2)
    optimizer.param_groups[0]["lr"] = 0.0
    return moved(optimizer, p)[0] > 0


def decay_is_coupled(make: Callable[..., Any]) -> bool:
    """Whether what decay adds to a step is far from lr times decay times the weights, 0.001."""
    ways = []
    for decay in (0.0, 0.1):
        p = parameter(8, 8)
        optimizer = make([p], lr=0.01, weight_decay=0.0)
        for _ in range(3):
            optimizer.step()
        optimizer.param_groups[0]["weight_decay"] = decay
        before = p.detach().clone()
        optimizer.step()
        ways.append(p.detach() - before)
        weights = before
    return float((ways[0] - ways[1] - 0.001 * weights).norm() / (0.001 * weights).norm()) > 0.5


def needs_graph(make: Callable[..., Any]) -> bool:
    """Whether a step fails after backward() and does not after backward(create_graph=True)."""
    for keep in (False, True):
        p = nn.Parameter(torch.ones(4, 4))
        optimizer = make([p])
        torch.autograd.backward(p.pow(3).sum(), create_graph=keep)
        try:
            optimizer.step()
        except RuntimeError:
            if keep:
                return False
        else:
            return keep
    return False


def judging_moves(make: Callable[..., Any]) -> bool:
    """Whether evaluating, eval() and train() again, changes the bits of the weights."""
    p = parameter(64, 64)
    optimizer = in_training(make([p]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        p.grad = torch.randn(64, 64, generator=generator)
        optimizer.step()
    before = p.detach().clone()
    optimizer.eval()
    optimizer.train()
    return not torch.equal(before, p.detach())


def late_steps(make: Callable[..., Any]) -> bool:
    """Whether a parameter whose gradient comes six steps late first goes another way."""
    p, late = parameter(8, 8), parameter(8, 8)
    late.grad = None
    optimizer = make([p, late])
    first = moved(optimizer, p)[0]
    for _ in range(5):
        optimizer.step()
    late.grad = torch.ones(8, 8)
    return not 0.8 < moved(optimizer, late)[0] / first < 1.25


def closure_without_gradients(make: Callable[..., Any]) -> bool:
    """Whether step(closure) calls it with gradients off, so that backward() fails in it."""
    seen = []
    optimizer = make([parameter(8, 8)])
    optimizer.step(lambda: seen.append(torch.is_grad_enabled()))
    return seen == [False]


def fails_on_zeros(make: Callable[..., Any]) -> bool:
    """Whether a first gradient of zeros, as behind a layer that starts at zero, is an error."""
    p = parameter(8, 8)
    p.grad = torch.zeros(8, 8)
    try:
        make([p]).step()
    except Exception:
        return True
    return False


def no_plain_state(make: Callable[..., Any]) -> bool:
    """Whether its state_dict() is refused by torch.load(weights_only=True)."""
    p = parameter(8, 8)
    optimizer = make([p])
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return True
    return False


def other_bits(make: Callable[..., Any], dtype: torch.dtype, **options: Any) -> bool:
    """Whether a run that goes on from its state_dict() has other bits (bfloat16 parameters).

    torch's load_state_dict casts float32 moments to the dtype of their parameter.
    """
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(8, 8, generator=generator).to(dtype) for _ in range(12)]
    whole, half = (nn.Parameter(torch.ones(8, 8, dtype=dtype)) for _ in range(2))
    one, optimizer = make([whole], **options), make([half], **options)
    for step, grad in enumerate(grads):
        if step == 6:
            state, half = optimizer.state_dict(), nn.Parameter(half.detach().clone())
            optimizer = make([half], **options)
            optimizer.load_state_dict(state)
        whole.grad, half.grad = grad.clone(), grad.clone()
        one.step()
        optimizer.step()
    return not torch.equal(whole, half)


SHOWN: list[tuple[Callable[..., bool], str, str, dict[str, Any]]] = [
    (writes_gradient, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (writes_gradient, "pytorch_optimizer", "Muon", {"use_muon": True}),
    (takes_gradient_away, "heavyball", "AdamW", {}),
    (takes_gradient_away, "heavyball", "SOAP", {}),
    (moves_at_zero, "pytorch_optimizer", "LaProp", {}),
    (moves_at_zero, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (decay_is_coupled, "pytorch_optimizer", "ADOPT", {}),
    (decay_is_coupled, "pytorch_optimizer", "AdEMAMix", {}),
    (needs_graph, "pytorch_optimizer", "SophiaH", {}),
    (needs_graph, "pytorch_optimizer", "AdaHessian", {}),
    (judging_moves, "pytorch_optimizer", "ScheduleFreeAdamW", {}),
    (judging_moves, "schedulefree", "AdamWScheduleFree", {}),
    (late_steps, "pytorch_optimizer", "StableAdamW", {}),
    (late_steps, "pytorch_optimizer", "LaProp", {}),
    (closure_without_gradients, "apollo_torch", "APOLLOAdamW", {}),
    (fails_on_zeros, "heavyball", "PSGDKron", {}),
    (no_plain_state, "pytorch_optimizer", "SCION", {}),
    (other_bits, "heavyball", "AdamW", {"dtype": torch.bfloat16}),
    (other_bits, "came_pytorch", "CAME", {"dtype": torch.bfloat16, "lr": 0.01}),
]
"""A script, a module, a class, and the script's further arguments."""


def show(script: Callable[..., bool], module: str, name: str, further: dict[str, Any]) -> bool:
    """Run a script on a class."""
    cls = getattr(importlib.import_module(module), name)
    return script(cls, **further)


def what(script: Callable[..., bool]) -> str:
    """Claim of a script of SHOWN: its docstring without "Whether"."""
    said = " ".join((script.__doc__ or "").split()).removeprefix("Whether ")
    return said[0].upper() + said[1:]


def outcomes() -> list[tuple[str, str, str, str]]:
    """Outcome of each script: package or class, script, claim, and whether it still holds."""
    found = []
    for package, text, script in DEFECTS:
        found.append((package, script.__name__, text, _state(script)))
    for row in SHOWN:
        state = _state(functools.partial(show, *row))
        found.append((f"{row[1]}:{row[2]}", row[0].__name__, what(row[0]), state))
    return found


def _state(script: Callable[[], bool]) -> str:
    try:
        return "shown" if script() else "not shown"
    except ImportError:
        return "not installed"
    except Exception as error:
        return f"fails: {type(error).__name__}"


if __name__ == "__main__":
    for outcome in outcomes():
        print(*outcome, sep=" | ")
