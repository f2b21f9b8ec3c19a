"""The peers: each is tried only where it is installed, and says why where it is not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from .contenders import COMMON, Contender, Params
from .shapes import hidden

Build = Callable[[Params], Any]


class UnavailableError(Exception):
    """A peer that is not installed, or does not work here; the text says which and why."""


def peers(official: Path | None = None) -> list[Contender]:
    """All known peers; building one that is not installed raises :class:`UnavailableError`.

    Args:
        official: a checkout of the MARS authors' code (github.com/AGI-Arena/MARS).
    """
    known: list[tuple[str, float | None, Build]] = [
        ("torch AdamW, foreach", 28, _torch("AdamW", foreach=True)),
        ("torch AdamW, for-loop", 28, _torch("AdamW", foreach=False, fused=False)),
        ("torch NAdamW, foreach", 28, _torch("NAdam", foreach=True, decoupled_weight_decay=True)),
        ("MARS of pytorch_optimizer", 44, _from("pytorch_optimizer", "MARS", optimize_1d=False)),
        ("MARS of timm", 44, _timm),
        ("MARS of HeavyBall (no clip)", 36, _from("heavyball", "AdamW", mars=True)),
        ("Lion of pytorch_optimizer", 20, _from("pytorch_optimizer", "Lion")),
    ]
    if official is not None:
        known.insert(3, ("MARS of its authors", 44, lambda params: _official(official, params)))
    listed = [Contender(name=n, kind="peer", build=b, bytes=size) for n, size, b in known]
    muon = Contender(
        name="torch Muon, AdamW for the rest", kind="peer", build=_muon, bytes=None, slow=True
    )
    eight_bit = [
        Contender(
            name=f"AdamW8bit of {package}",
            kind="peer",
            build=_from(module, "AdamW8bit"),
            bytes=16,  # gradient 4, parameter 4 + 4, two moments of one byte 2 + 2
            slow=True,
        )
        for package, module in (
            ("bitsandbytes", "bitsandbytes.optim"),
            ("torchao", "torchao.optim"),
        )
    ]
    return [*listed, muon, *eight_bit]


class Together:
    """Several optimizers that step as one."""

    def __init__(self, parts: Iterable[Optimizer]) -> None:
        self.parts = tuple(parts)

    def step(self) -> None:
        """Step each."""
        for part in self.parts:
            part.step()


def _torch(name: str, **options: Any) -> Build:
    return lambda params: getattr(torch.optim, name)(params.values(), **COMMON, **options)


def _from(package: str, name: str, **options: Any) -> Build:
    def build(params: Params) -> Any:
        module = _import(package)
        if not hasattr(module, name):
            raise UnavailableError(f"the installed {package} has no {name}")
        return getattr(module, name)(params.values(), **COMMON, **options)

    return build


def _muon(params: Params) -> Together:
    if not hasattr(torch.optim, "Muon"):
        raise UnavailableError(f"torch {torch.__version__} has no Muon")
    matrices = [p for n, p in params.items() if hidden(n, tuple(p.shape))]
    rest = [p for n, p in params.items() if not hidden(n, tuple(p.shape))]
    muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **COMMON)
    return Together([muon, torch.optim.AdamW(rest, fused=True, **COMMON)])


def _timm(params: Params) -> Optimizer:
    """From timm's one file: timm itself imports torchvision."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("timm is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "optim"
    package = types.ModuleType("timm_optim_alone")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    module = _load(folder / "mars.py", f"{package.__name__}.mars")
    made: Optimizer = module.Mars(params.values(), **COMMON)
    return made


def _official(checkout: Path, params: Params) -> Optimizer:
    path = checkout / "MARS" / "optimizers" / "mars.py"
    made: Optimizer = _load(path, "official_mars").MARS(params.values(), **COMMON)
    return made


def _load(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UnavailableError(f"there is no {path.name} where it should be ({path.parent})")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(module: str) -> Any:
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise UnavailableError(f"{package} is not installed")
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever its own dependencies raise
        raise UnavailableError(f"{package} cannot be imported: {error}") from error
