"""Files are written whole, under names that nobody can lay a link in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from mars_optim.experiment.data.prepared_files import HashedFile
from mars_optim.experiment.records.lock import folder_lock
from mars_optim.experiment.tasks.prepared import write_whole
from mars_optim.files import whole_file, write_text
from mars_optim.guard.stores import DiskStore

MINE = "mine"


def snapshot(path: Path) -> None:
    DiskStore(path.parent, None).put(7, {"x": torch.zeros(2)})


def hashed(path: Path) -> None:
    with HashedFile(path) as file:
        file.write(b"new")


WRITERS = {
    "write_text": (lambda p: write_text(p, "new"), "out.json"),
    "write_whole": (lambda p: write_whole(p, "new"), "out.json"),
    "HashedFile": (hashed, "train.bin"),
    "snapshot": (snapshot, "step-000000007.pt"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_link_at_a_guessable_name_is_not_written_through(tmp_path: Path, name: str):
    write, file = WRITERS[name]
    victim, folder = tmp_path / "victim", tmp_path / "shared"
    victim.write_text(MINE)
    folder.mkdir()
    guesses = [f"{file}.tmp", f"{file}.part", f"{file}.{os.getpid()}.part"]
    for guess in [*guesses, f"{Path(file).stem}.tmp"]:
        (folder / guess).symlink_to(victim)
    write(folder / file)  # type: ignore[no-untyped-call]
    assert victim.read_text() == MINE
    assert (folder / file).is_file()
    assert not (folder / file).is_symlink()
    left = {p.name for p in folder.iterdir()} - {*guesses, f"{Path(file).stem}.tmp", file}
    assert left == set()


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_fails_leaves_nothing(tmp_path: Path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(TypeError), whole_file(tmp_path / "a") as file:
        file.write(b"text is what it takes")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), folder_lock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
