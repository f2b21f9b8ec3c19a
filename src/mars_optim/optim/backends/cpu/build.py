"""The CPU kernels' C source as a loaded library: built at first use, kept for the next time."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .cache import CACHE

SOURCE = Path(__file__).with_name("native.c")
ABI = 4
TIMEOUT = 30  # seconds; it takes about one
FLAGS = [
    "-O3",
    "-std=c11",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-pthread",
]
MACHINES: tuple[list[str], ...] = (
    ["-march=native"],
    ["-mcpu=native"],
    [],
)  # what this compiler calls "this machine"
COMPILERS = [["cc"], ["gcc"], ["clang"]]  # the first there is, unless CC names one
SWITCH = "MARS_OPTIM_NATIVE"  # "0" in the environment: do not build, do not load

log = logging.getLogger("mars_optim")


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded library, or why there is none.

    Args:
        c: its functions; None if there is none.
        note: where it is and how long the build took, or what is missing.
        float16: whether the compiler knew _Float16.
        block: elements of a tensor of which there is one partial sum.
    """

    c: ctypes.CDLL | None
    note: str
    float16: bool = False
    block: int = 1


@functools.cache
def library(real: str = "float") -> Library:
    """Load the kernels that compute in ``real``, building them if no process has. Never raises.

    Without a C compiler everything works, by torch's own kernels; ``describe()`` says so.
    """
    if os.environ.get(SWITCH) == "0":
        return Library(None, f"switched off by {SWITCH}=0")
    try:
        return _found_or_built(real)
    except Exception as error:  # whatever a compiler or a file system may come up with
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        log.info("CPU kernels are not available: %s", reason)
        return Library(None, f"no CPU kernels: {reason}")


def _found_or_built(real: str) -> Library:
    compiler = _compiler()
    stem = f"{real}-{_key(compiler)}"
    folder, why_not_kept = _folder()
    if folder is not None and (path := cache.find(folder, stem)):
        with contextlib.suppress(OSError, AttributeError, RuntimeError):
            return _load(path, f"CPU kernels: {path}")
        log.info("%s cannot be loaded and is built again", path)
    start = time.perf_counter()
    # a folder of our own, so that nobody can touch what is loaded from there
    with tempfile.TemporaryDirectory(prefix="mars-optim-", ignore_cleanup_errors=True) as private:
        path = _build(compiler, Path(private), real)
        note = f"CPU kernels: built in {time.perf_counter() - start:.1f} s with {compiler[0]}"
        if folder is not None:
            try:
                kept = cache.keep(folder, stem, path.read_bytes())
                found = _load(kept, f"{note}, kept at {kept}")
            except OSError as error:
                why_not_kept = str(error)
            else:
                log.info(found.note)
                return found
        found = _load(path, f"{note}, for this process alone: {why_not_kept}")
        log.info(found.note)
        return found


def _folder() -> tuple[Path | None, str]:
    """The cache folder, or None and why; a folder that others can write is worth a warning."""
    try:
        return cache.folder(), ""
    except cache.UntrustedError as error:
        _warn_once(
            f"CPU kernels are not kept, so each process builds them again: {error}. Give "
            f"{CACHE} a folder that only you can write to"
        )
        return None, str(error)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        return None, str(error)


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _load(path: Path, note: str) -> Library:
    c = ctypes.CDLL(str(path))
    for name in ("native_block", "native_look"):
        getattr(c, name).restype = ctypes.c_int64
    for name in ("native_sums", "native_update"):
        getattr(c, name).restype = None
    if c.native_abi() != ABI:
        raise RuntimeError(f"{path} is of another version: delete it")
    return Library(c, note, float16=bool(c.native_has_float16()), block=c.native_block())


def _compiler() -> list[str]:
    """Its path and the options that CC gives it, such as ``CC="gcc -m64"``."""
    given = os.environ.get("CC", "")
    if found := shutil.which(given):  # a path may have spaces
        return [found]
    names = [shlex.split(given, posix=os.name == "posix")] if given.strip() else COMPILERS
    for name, *options in names:
        if found := shutil.which(name):
            return [found, *options]
    raise RuntimeError(f"no C compiler found ({given or 'cc, gcc or clang'})")


def _key(compiler: list[str]) -> str:
    """Hash of source, flags, compiler and machine: different ones may share a home folder."""
    version = _run([*compiler, "--version"])
    version.check_returncode()
    parts = [SOURCE.read_text(), *FLAGS, *compiler[1:], version.stdout, platform.platform(), _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """Model and instruction set, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _build(compiler: list[str], folder: Path, real: str) -> Path:
    """Compile into ``folder``, for this very machine if the compiler knows how.

    Raises:
        RuntimeError: with the end of what the compiler says.
    """
    path = folder / f"{real}.so"
    for machine in MACHINES:
        options = [*FLAGS, *machine, f"-DREAL={real}"]
        done = _run([*compiler, *options, str(SOURCE), "-o", str(path), "-lm"])
        if done.returncode == 0:
            return path
    raise RuntimeError(f"{compiler[0]} failed: {done.stderr.strip()[-200:]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT
    )
