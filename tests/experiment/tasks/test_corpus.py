"""Text on disk becomes bytes to train on and bytes to validate on."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from mars_optim.experiment.tasks import Corpus, TextTask, load_corpus
from tests.support.corpora import file_content, write_files


def as_bytes(text: Tensor) -> bytes:
    return text.numpy().tobytes()


def sides(corpus: Corpus) -> tuple[set[bytes], set[bytes]]:
    """The files in the training text and those in the validation text."""
    train, valid = (as_bytes(side).split(b"\0") for side in (corpus.train, corpus.valid))
    return set(train), set(valid)


def test_each_file_is_whole_on_one_side_and_on_no_other(tmp_path: Path):
    train, valid = sides(load_corpus(str(write_files(tmp_path))))
    assert train | valid == {file_content(200 + i) for i in range(40)}
    assert not train & valid
    assert train
    assert valid


def test_no_line_that_is_validated_on_was_trained_on(tmp_path: Path):
    corpus = load_corpus(str(write_files(tmp_path)))
    train = set(as_bytes(corpus.train).splitlines())
    for line in as_bytes(corpus.valid).replace(b"\0", b"").splitlines():
        assert line not in train


def test_a_twentieth_of_many_files_is_validated_on(tmp_path: Path):
    corpus = load_corpus(str(write_files(tmp_path, 600)))
    assert corpus.files == 600
    _, valid = sides(corpus)
    assert 15 <= len(valid) <= 48  # 30 on average, three standard deviations


def test_file_stays_on_its_side_when_files_are_added_or_renamed(tmp_path: Path):
    train, valid = sides(load_corpus(str(write_files(tmp_path))))
    for i, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"renamed{40 - i:02}.md")
    write_files(tmp_path / "more", 60, first=1000)
    later_train, later_valid = sides(load_corpus(str(tmp_path)))
    assert train <= later_train
    assert valid <= later_valid


def test_copies_of_one_file_are_on_the_same_side(tmp_path: Path):
    write_files(tmp_path / "a")
    write_files(tmp_path / "b")
    train, valid = sides(load_corpus(str(tmp_path)))
    assert not train & valid


@pytest.mark.parametrize("count", [1, 7, 19])
def test_of_few_files_the_last_tenth_of_the_text_is_validated_on(tmp_path: Path, count: int):
    for i in range(count):
        (tmp_path / f"{i:04}.txt").write_bytes(file_content(i, lines=20_000 // (20 * count) + 500))
    corpus = load_corpus(str(tmp_path))
    whole = as_bytes(corpus.train) + as_bytes(corpus.valid)
    assert whole == b"\0".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert len(corpus.valid) == pytest.approx(len(whole) / 10, abs=1)


def test_a_single_file_is_a_corpus(tmp_path: Path):
    path = tmp_path / "book.anything"
    path.write_bytes(file_content(0, 2000))
    corpus = load_corpus(str(path))
    assert corpus.files == 1
    assert corpus.name == str(path)
    assert as_bytes(corpus.train) + as_bytes(corpus.valid) == path.read_bytes()


def rename(folder: Path) -> None:
    (folder / "0207.txt").rename(folder / "0207b.txt")


def change(folder: Path) -> None:
    (folder / "0207.txt").write_bytes(file_content(207).replace(b"file", b"File", 1))


def swap(folder: Path) -> None:
    (folder / "0207.txt").write_bytes(file_content(208))
    (folder / "0208.txt").write_bytes(file_content(207))


def move_a_line(folder: Path) -> None:
    a, b = folder / "0207.txt", folder / "0208.txt"
    a.write_bytes(file_content(207) + file_content(208)[:10])
    b.write_bytes(file_content(208)[10:])


def remove(folder: Path) -> None:
    (folder / "0207.txt").unlink()


@pytest.mark.parametrize("edit", [rename, change, swap, move_a_line, remove])
def test_the_hash_changes_with_any_name_and_content(tmp_path: Path, edit: Callable[[Path], None]):
    before = load_corpus(str(write_files(tmp_path))).sha256
    edit(tmp_path)
    assert load_corpus(str(tmp_path)).sha256 != before


def touch(folder: Path) -> None:
    for i, path in enumerate(folder.iterdir()):
        os.utime(path, (i, i))


def write_again_in_another_order(folder: Path) -> None:
    for path in sorted(folder.iterdir(), reverse=True):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


def add_what_is_no_text(folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "readme.txt").write_text("not ours")
    (folder / "empty folder.txt").mkdir()


@pytest.mark.parametrize("edit", [touch, write_again_in_another_order, add_what_is_no_text])
def test_corpus_hash_and_text_ignore_times_order_and_other_files(
    tmp_path: Path, edit: Callable[[Path], None]
):
    before = load_corpus(str(write_files(tmp_path)))
    edit(tmp_path)
    after = load_corpus(str(tmp_path))
    assert after.sha256 == before.sha256
    assert sides(after) == sides(before)


def test_the_hash_does_not_depend_on_where_the_folder_is(tmp_path: Path):
    a, b = (load_corpus(str(write_files(tmp_path / name))) for name in ("here", "there"))
    assert a.sha256 == b.sha256


def test_a_missing_path_is_named_with_what_is_allowed(tmp_path: Path):
    path = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"^task\.corpus = ") as error:
        load_corpus(path)
    assert f"{path!r} does not exist" in str(error.value)
    assert "'stdlib'" in str(error.value)


@pytest.mark.parametrize("size", [0, 100, 9_000])
def test_too_little_text_is_refused_with_present_and_needed_size(tmp_path: Path, size: int):
    (tmp_path / "short.txt").write_bytes(b"x" * size)
    with pytest.raises(ValueError, match=f"holds {size:,} bytes of text in 1 files") as error:
        load_corpus(str(tmp_path))
    assert "needs at least 20,480" in str(error.value)


def test_the_size_that_is_called_enough_is_enough(tmp_path: Path):
    (tmp_path / "short.txt").write_bytes(b"x" * 20_480)
    assert len(load_corpus(str(tmp_path)).valid) >= 1024


@pytest.mark.parametrize("first", [0, 400])
def test_forty_files_of_enough_text_are_a_corpus_at_any_hash(tmp_path: Path, first: int):
    corpus = load_corpus(str(write_files(tmp_path, 40, first=first)))
    assert min(len(corpus.train), len(corpus.valid)) >= 1024


def test_folder_dominated_by_one_file_is_a_corpus(tmp_path: Path):
    for i in range(24):
        (tmp_path / f"note{i}.md").write_bytes(file_content(i, lines=4))
    (tmp_path / "book.txt").write_bytes(file_content(99, lines=20_000))
    corpus = load_corpus(str(tmp_path))
    assert len(corpus.train) > len(corpus.valid) >= 1024


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="holds 0 bytes of text in 0 files"):
        load_corpus(str(tmp_path))


def test_context_beyond_validation_text_is_refused_with_sizes(tmp_path: Path):
    corpus = load_corpus(str(write_files(tmp_path)))
    n = len(corpus.valid)
    with pytest.raises(ValueError, match=f"task.context = {n} is longer than") as error:
        TextTask(corpus, context=n, layers=1, width=8, heads=1, batch=1)
    assert f"{n:,} validation bytes" in str(error.value)
    TextTask(corpus, context=n - 1, layers=1, width=8, heads=1, batch=1)


def test_stdlib_corpus_leaves_out_tests_caches_and_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = [tmp_path / "a.py", tmp_path / "json" / "b.py", tmp_path / "unittest" / "testcase.py"]
    left_out = [
        tmp_path / folder / "c.py"
        for folder in ("test", "json/tests", "idlelib/idle_test", "site-packages/x", "__pycache__")
    ]
    for i, path in enumerate([*kept, *left_out, tmp_path / "d.txt"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_content(i, 500))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    corpus = load_corpus("stdlib")
    whole = as_bytes(corpus.train) + as_bytes(corpus.valid)
    assert whole == b"\0".join(path.read_bytes() for path in kept)


def test_this_pythons_own_standard_library_is_a_corpus():
    corpus = load_corpus("stdlib")
    root = Path(sysconfig.get_paths()["stdlib"])
    assert corpus.name == "stdlib"
    assert corpus.files > 300
    assert len(corpus.train) > 5_000_000
    assert 0.02 < len(corpus.valid) / (len(corpus.train) + len(corpus.valid)) < 0.1
    train, valid = sides(corpus)
    for name in ("ast.py", "json/decoder.py", "asyncio/base_events.py"):
        assert ((root / name).read_bytes() in train) != ((root / name).read_bytes() in valid)
