"""The CPU kernels' C source as a loaded library: built at first use, kept for the next time."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("native.c")
ABI = 1
TIMEOUT = 30  # seconds; it takes about one
FLAGS = ["-O3", "-std=c11", "-fopenmp-simd", "-fno-math-errno", "-shared", "-fPIC"]
MACHINES: tuple[list[str], ...] = (
    ["-march=native"],
    ["-mcpu=native"],
    [],
)  # what this compiler calls "this machine"
SWITCH = "MARS_OPTIM_NATIVE"  # "0" in the environment: do not build, do not load
CACHE = "MARS_OPTIM_CACHE"  # where libraries are kept

log = logging.getLogger("mars_optim")


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded library, or why there is none.

    Args:
        c: its functions; None if there is none.
        note: where it is and how long the build took, or what is missing.
        float16: whether the compiler knew _Float16.
    """

    c: ctypes.CDLL | None
    note: str
    float16: bool = False


@functools.cache
def library(real: str = "float") -> Library:
    """Load the kernels that compute in ``real``, building them if no process has. Never raises.

    Without a C compiler everything works, by torch's own kernels; ``describe()`` says so.
    """
    if os.environ.get(SWITCH) == "0":
        return Library(None, f"switched off by {SWITCH}=0")
    try:
        compiler = _compiler()
        path = _cache() / f"{real}-{_key(compiler)}.so"
        if path.exists():
            try:
                return _load(path, f"CPU kernels: {path}")
            except OSError:
                log.info("%s is damaged and will be built anew", path)
        start = time.perf_counter()
        _build(compiler, path, real)
        seconds = time.perf_counter() - start
        note = f"CPU kernels: built in {seconds:.1f} s with {compiler}, kept at {path}"
        log.info(note)
        return _load(path, note)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:300]
        log.info("CPU kernels cannot be had: %s", reason)
        return Library(None, f"no CPU kernels: {reason}")


def _load(path: Path, note: str) -> Library:
    c = ctypes.CDLL(str(path))
    c.native_block.restype = ctypes.c_int64
    for name in ("native_advance", "native_sums", "native_add_up", "native_update"):
        getattr(c, name).restype = None
    if c.native_abi() != ABI:
        raise RuntimeError(f"{path} is of another version: delete it")
    return Library(c, note, float16=bool(c.native_has_float16()))


def _compiler() -> str:
    given = os.environ.get("CC")
    for name in [given] if given else ["cc", "gcc", "clang"]:
        if found := shutil.which(name):
            return found
    raise RuntimeError(f"no C compiler found ({given or 'cc, gcc or clang'})")


def _key(compiler: str) -> str:
    """Of source, flags, compiler and machine: a home folder may be shared by different ones."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=True
    ).stdout
    parts = [SOURCE.read_text(), *FLAGS, version, platform.platform(), _cpu()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """Model and instruction set, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _cache() -> Path:
    """The user's own cache folder; one for this process alone where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(CACHE) or Path(base) / "mars-optim")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
        if ours and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="mars-optim-"))


def _build(compiler: str, path: Path, real: str) -> None:
    """Compile to a name of our own, then move: another process may be building the same."""
    handle, fresh = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        for machine in MACHINES:
            command = [
                compiler,
                *FLAGS,
                *machine,
                f"-DREAL={real}",
                str(SOURCE),
                "-o",
                fresh,
                "-lm",
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            if done.returncode == 0:
                os.replace(fresh, path)
                return
        raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[-200:]}")
    finally:
        Path(fresh).unlink(missing_ok=True)
