"""Findings of the zoo's checks, each in the fewest lines that show it; true as far as it runs.

Here are those of one package; those that ask a class of any package are in :mod:`.any_class`.
``python -m docs.zoo.defects`` runs all of them. Where a thing may be meant so, the text says it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from .any_class import SHOWN, moved, parameter, show, what

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
