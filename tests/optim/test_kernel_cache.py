"""The cache of kernels: whole or built anew, ours or not used, and never a reason to fail."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_optim import MARSAdamW
from mars_optim.optim.backends.cpu import build, cache
from tests.support.cases import needs_compiler

STEP = (
    "import torch, mars_optim; p = torch.nn.Parameter(torch.ones(3, 3)); p.grad = torch.ones(3, 3);"
    "o = mars_optim.MARSAdamW([p]); o.step(); print(o.describe())"
)
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder that is not there yet; nothing is loaded, and nobody has been warned."""
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    quick = ["-O0" if flag == "-O3" else flag for flag in build.FLAGS]
    monkeypatch.setattr(build, "FLAGS", quick)  # it is built often here
    monkeypatch.setattr(build, "MACHINES", ([],))
    for cached in (build.library, build._warn_once):
        cached.cache_clear()
    yield tmp_path / "cache"
    for cached in (build.library, build._warn_once):
        cached.cache_clear()


def another_process(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STEP], env={**os.environ, cache.CACHE: str(folder)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@needs_compiler
def test_a_damaged_library_is_built_anew(folder: Path) -> None:
    assert "built in" in build.library().note
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    flipped = bytes([*whole[:9000], whole[9000] ^ 1, *whole[9001:]])
    for damaged in (b"", whole[:3000], whole[: len(whole) // 2], whole[:-100], flipped):
        fresh = folder / "fresh"
        fresh.write_bytes(damaged)
        os.replace(fresh, path)  # the old one is mapped here
        build.library.cache_clear()
        assert "built in" in build.library().note
        assert path.read_bytes() == whole
        assert list(folder.iterdir()) == [path]


@pytest.mark.slow
@needs_compiler
def test_a_truncated_library_is_no_bus_error_in_the_next_process(folder: Path) -> None:
    assert another_process(folder).returncode == 0
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = another_process(folder)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == whole


@needs_compiler
def test_a_library_of_something_else_under_our_name_is_no_error(folder: Path) -> None:
    found = build.library()
    (path,) = folder.iterdir()
    stem = path.name.rsplit("-", 1)[0]
    path.unlink()
    other = folder.parent / "other.c"
    other.write_text("int other(void) { return 1; }")
    gcc = shutil.which("cc") or shutil.which("gcc")
    assert gcc is not None
    subprocess.run([gcc, "-shared", "-fPIC", other, "-o", folder.parent / "other.so"], check=True)
    cache.keep(folder, stem, (folder.parent / "other.so").read_bytes())
    build.library.cache_clear()
    again = build.library()
    assert again.c is not None
    assert "built in" in again.note
    assert found.c is not None


@needs_compiler
@posix
def test_only_this_user_can_read_or_write_what_is_kept(folder: Path) -> None:
    assert build.library().c is not None
    (path,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def open_to_a_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def foreign(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


def below_foreign(folder: Path) -> None:
    os.chown(folder.parent, 12345, 12345)


def below_open(folder: Path) -> None:
    folder.parent.chmod(0o777)


def linked_to_foreign(folder: Path) -> None:
    target = folder.parent / "theirs"
    foreign(target)
    folder.symlink_to(target)


REFUSED = {
    "open to all": (open_to_all, "other users may write to"),
    "open to a group": (open_to_a_group, "other users may write to"),
    "below a folder open to all": (below_open, "other users may write to"),
    "another user's": (foreign, "belongs to another user (uid 12345)"),
    "below another user's": (below_foreign, "belongs to another user (uid 12345)"),
    "a link to another user's": (linked_to_foreign, "belongs to another user (uid 12345)"),
}


@needs_compiler
@posix
@pytest.mark.parametrize(("prepare", "reason"), REFUSED.values(), ids=REFUSED)
def test_folder_writable_by_others_is_not_used_with_one_warning(
    prepare: Any, reason: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.getuid() != 0 and "12345" in reason:
        pytest.skip("only root can give a folder to another user")
    prepare(folder)
    with caplog.at_level(logging.WARNING, "mars_optim"):
        found = [build.library("float"), build.library("double")]
    assert all(library.c is not None for library in found)  # built for this process alone
    assert reason in caplog.text
    assert caplog.text.count("CPU kernels are not kept") == 1
    assert cache.CACHE in caplog.text
    assert "for this process alone" in found[0].note
    assert reason in found[0].note
    assert not folder.exists() or not list(folder.iterdir())
    params = [torch.nn.Parameter(torch.ones(3, 2))]
    assert reason in MARSAdamW(params).describe()


@needs_compiler
@posix
@pytest.mark.parametrize("wrong", ["mode", "owner", "link"])
def test_a_file_that_others_could_have_written_is_built_anew(folder: Path, wrong: str) -> None:
    if wrong == "owner" and os.getuid() != 0:
        pytest.skip("only root can give a file to another user")
    assert build.library().c is not None
    (path,) = folder.iterdir()
    if wrong == "mode":
        path.chmod(0o666)
    elif wrong == "owner":
        os.chown(path, 12345, 12345)
    else:
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")
    build.library.cache_clear()
    again = build.library()
    assert again.c is not None
    assert "built in" in again.note
    assert path.is_file()
    assert not path.is_symlink()
    assert path.stat().st_uid == os.getuid()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@needs_compiler
def test_a_library_is_synced_before_it_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        seen.append("file" if stat.S_ISREG(os.fstat(handle).st_mode) else "folder")
        sync(handle)

    def replaced(source: Any, target: Any) -> None:
        assert ".." not in str(source)
        seen.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    assert build.library().c is not None
    assert seen == ["file", "name", "folder"]


@needs_compiler
def test_full_disk_keeps_kernels_in_process_and_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = build.library()
    assert found.c is not None
    assert "No space left on device" in found.note
    assert not list(folder.iterdir())


@needs_compiler
def test_nothing_stays_behind_in_the_folder_for_temporary_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    open_to_all(folder)  # so that it is built for this process alone
    assert build.library().c is not None
    assert not list(temporary.iterdir())


@needs_compiler
@pytest.mark.parametrize("options", ["-m64", "-DUNUSED='a b'", "-O2 -g"])
def test_cc_may_have_options(folder: Path, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    monkeypatch.setenv("CC", f"gcc {options}")
    found = build.library()
    assert found.c is not None, found.note
    assert gcc in found.note


@needs_compiler
def test_cc_may_be_a_path_with_spaces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = folder.parent / "my compilers"
    compiler.mkdir()
    (compiler / "cc").symlink_to(shutil.which("cc") or shutil.which("gcc") or "")
    monkeypatch.setenv("CC", str(compiler / "cc"))
    assert build.library().c is not None


BAD_CC = [
    "gcc 'no end",
    "''",
    "no-such-compiler -m64",
    "\udcff",
    "sh -c 'printf \"\\377\"; exit 1'",
]


@pytest.mark.parametrize("cc", BAD_CC)
def test_no_compiler_is_no_error_whatever_cc_says(
    folder: Path, cc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", cc)
    found = build.library()
    assert found.c is None
    assert found.note.startswith("no CPU kernels: ")


@pytest.mark.parametrize("error", [ValueError, AttributeError, UnicodeDecodeError, MemoryError])
def test_library_never_raises(folder: Path, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise error("utf-8", b"", 0, 1, "no") if error is UnicodeDecodeError else error("no")

    monkeypatch.setattr(build, "_key", fail)
    assert build.library().c is None
