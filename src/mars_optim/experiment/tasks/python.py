"""A Task that the user wrote: found by its name, and tried before anything is spent on it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from .base import Task


def import_task(source: str, folder: Path, **keywords: int) -> Task:
    """Make the task that ``source`` names; its fingerprint then covers its source file.

    Args:
        source: ``"my_task.py:MyTask"`` or ``"package.module:MyTask"``: a class or a function,
            called without arguments.
        folder: where the file or package lies; the working directory is searched after it.
        **keywords: to call it with after all, such as the width of a coordinate check.

    Raises:
        ValueError: naming ``source``, if there is no such thing or it fails.
    """
    where, _, name = source.rpartition(":")
    module = load_module(where, folder)
    factory = getattr(module, name, None)
    if not callable(factory):
        offered = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ValueError(
            f"task.source = {source!r}: {where} has no class or function {name!r}; it has "
            f"{', '.join(offered) or 'none'}"
        )
    try:
        task: Task = factory(**keywords)
    except Exception as error:
        call = f"{name}({', '.join(f'{k}={v}' for k, v in keywords.items())})"
        raise ValueError(f"task.source = {source!r}: {call} failed: {reason(error)}") from error
    for attribute in ("fingerprint", "batch_tokens", "build_model", "batch", "loss", "evaluate"):
        if not hasattr(task, attribute):
            raise ValueError(
                f"task.source = {source!r}: {type(task).__name__} has no {attribute!r}; "
                "`mars init task` writes an example with all that is needed"
            )
    file = Path(module.__file__ or "")
    code = file.read_bytes() if file.is_file() else b""
    both = f"{task.fingerprint}\n{sha256(code).hexdigest()}"
    try:
        task.fingerprint = sha256(both.encode()).hexdigest()
    except AttributeError:
        raise ValueError(
            f"task.source = {source!r}: fingerprint must be an attribute that can be set"
        ) from None
    return task


def reason(error: BaseException) -> str:
    """An exception in one line, with the line of the user's code that it came from."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""
    return " ".join(f"{type(error).__name__}: {error}{place}".split())


def load_module(where: str, folder: Path, key: str = "task.source") -> ModuleType:
    """Import a file or a module that a plan names.

    Args:
        where: ``"my_task.py"`` or ``"package.module"``.
        folder: where the file or package lies; the working directory is searched after it.
        key: of the plan, for messages.

    Raises:
        ValueError: naming ``key``, if it is not there or cannot be imported.
    """
    if where.endswith(".py"):
        return _from_file(where, folder, key)
    return _from_package(where, folder, key)


def _from_file(where: str, folder: Path, key: str) -> ModuleType:
    path = next((p for p in (folder / where, Path(where)) if p.is_file()), None)
    if path is None:
        raise ValueError(f"{key}: {folder / where} does not exist")
    path = path.resolve()
    # its neighbours, and processes that it starts, import it by its own name
    _search(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{key}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{key}: {path} cannot be imported: {reason(error)}") from error
    return module


def _from_package(where: str, folder: Path, key: str) -> ModuleType:
    _search(Path.cwd())
    _search(folder)
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{key}: {where} cannot be imported from {folder}: {reason(error)}"
        ) from error


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
