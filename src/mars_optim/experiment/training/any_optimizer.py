"""Any class of optimizers by its name: found, known by its source, made on parameters."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.optim.optimizer import Optimizer

from ...errors import UserError, did_you_mean
from ..plan.any_arm import split_name
from ..tasks.python import load_module, reason


@dataclass(frozen=True, slots=True)
class Source:
    """Where an optimizer's code comes from: another one is another run.

    Args:
        name: as the plan names it, ``"pytorch_optimizer:SOAP"``.
        module: that defines the class, which may be another one.
        package: distribution that the module belongs to; "" of a file.
        version: of the package; "" of a file.
        sha256: of all Python files of the package, or of the file.
    """

    name: str
    module: str
    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """In a line, without the name: what tells one source from another."""
        package = f", {self.package} {self.version}" if self.package else ""
        return f"{self.module}{package}, sha256 {self.sha256}"


@dataclass(frozen=True, slots=True)
class AnyOptimizer:
    """A class of optimizers with what it is made from.

    Args:
        cls: takes parameters, ``lr`` and ``options``.
        lr: where tuning starts.
        options: further keyword arguments.
        group_options: further keys of parameter groups, by kind of parameter, such as
            ``{"matrix": {"use_muon": True}}``.
        key: of the plan, for messages.
    """

    cls: Callable[..., Optimizer]
    lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
    group_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    key: str = "optimizer"

    def __post_init__(self) -> None:
        """See that the class takes ``lr`` and the options.

        Raises:
            UserError: naming the one that it does not take.
        """
        name, parameters = self.name, _keywords(self.cls)
        if parameters is None:
            return
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if "lr" not in parameters and not anything:
            raise UserError(
                f"{self.key}: {name} takes no lr, which the pilot tunes; it takes "
                f"{', '.join(list(parameters)[1:]) or 'nothing'}: wrap it in a class of your "
                "own that takes lr"
            )
        for option in self.options:
            near = did_you_mean(option, parameters)
            if option not in parameters and (near or not anything):
                known = ", ".join(list(parameters)[1:])
                raise UserError(
                    f"{self.key}: {name} takes no {option!r}{near or f'; it takes {known}'}"
                )

    @property
    def name(self) -> str:
        """Name of the class."""
        return str(getattr(self.cls, "__name__", self.cls))

    def takes(self, option: str) -> bool:
        """Whether the class names this keyword argument."""
        return option in (_keywords(self.cls) or {})

    def on(
        self,
        groups: Sequence[Any],
        lr: float | None = None,
        names: Sequence[str] = (),
        **changes: Any,
    ) -> Optimizer:
        """Make the optimizer.

        Args:
            groups: parameters, or dicts of them.
            lr: in place of ``self.lr``.
            names: of the parameters, for a class that takes named ones.
            changes: of the options.

        Raises:
            UserError: with the reason that the class gives.
        """
        options = {**self.options, **changes}
        params: Iterable[Any] = groups
        if next(iter(_keywords(self.cls) or {}), "") == "named_parameters":
            if any(isinstance(group, dict) for group in groups):
                raise UserError(
                    f"{self.key}: {self.name} takes named parameters, but not groups of them"
                )
            known = names or [f"p{i}" for i in range(len(groups))]
            params = list(zip(known, groups, strict=True))
        try:
            made = self.cls(params, lr=self.lr if lr is None else lr, **options)
        except Exception as error:
            raise UserError(f"{self.key}: {self.name} cannot be made: {reason(error)}") from error
        if not isinstance(made, Optimizer):
            raise UserError(
                f"{self.key}: {self.name} made a {type(made).__name__}, which is not a "
                "torch.optim.Optimizer"
            )
        return made


def find_optimizer(
    source: str, folder: Path, key: str = "optimizer"
) -> tuple[Callable[..., Optimizer], Source]:
    """The class that ``source`` names, and where its code comes from.

    Args:
        source: ``"package.module:Class"`` or ``"file.py:Class"``.
        folder: of the plan, where the file lies.
        key: of the plan, for messages.

    Raises:
        UserError: naming ``key``, in one line.
    """
    where, name = split_name(source, key)
    try:
        module = load_module(where, folder, key)
    except ValueError as error:
        missing = isinstance(error.__cause__, ModuleNotFoundError)
        way_out = "; install its package where mars runs, or name a file beside the plan"
        raise UserError(f"{error}{way_out * missing}") from error
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        offered = sorted(k for k, v in vars(module).items() if _is_optimizer(v))
        cased = {k.lower(): k for k in offered}.get(name.lower())
        near = f"; did you mean {cased!r}?" if cased else did_you_mean(name, offered)
        some = f"; it has {', '.join(offered[:12])}" if offered else "; it has no optimizer at all"
        raise UserError(f"{key} = {source!r}: {where} has no class {name!r}{near or some}")
    if not _is_optimizer(cls):
        raise UserError(f"{key} = {source!r}: {name} is not a torch.optim.Optimizer")
    return cls, source_of(source, cls, module)


def source_of(name: str, cls: type, module: ModuleType) -> Source:
    """Where the code of a class comes from.

    A package's optimizer may lie in many of its files, so all of them count; of torch, those of
    torch.optim.
    """
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return Source(name, cls.__module__, "", "", _hash([Path(module.__file__ or "")]))
    top = cls.__module__.partition(".")[0]
    packages = importlib.metadata.packages_distributions().get(top, [])
    package = packages[0] if packages else ""
    version = importlib.metadata.version(package) if package else ""
    return Source(name, cls.__module__, package, version, _hash(_files(cls, top)))


def _files(cls: type, top: str) -> list[Path]:
    """The Python files of the class's package."""
    own = Path(inspect.getsourcefile(cls) or "")
    folders = [p for p in own.parents if p.name == top]
    if not folders:
        return [own]
    folder = folders[0] / "optim" if top == "torch" else folders[0]
    return sorted(folder.rglob("*.py"))


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _is_optimizer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer


def _keywords(cls: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Keyword arguments of the class, without ``self``; None where nobody can tell."""
    try:
        return inspect.signature(cls).parameters
    except (TypeError, ValueError):
        return None
