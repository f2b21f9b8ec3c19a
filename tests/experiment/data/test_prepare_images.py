"""Images of the hub and of CIFAR's archive -> a folder: exact, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mars_optim.cli import main
from mars_optim.experiment.tasks import load_images
from tests.support.archives import cifar_parts, write_archive
from tests.support.hub import write_parquet

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (20, 6, 5, 3)).astype(np.uint8)
TEST = RNG.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8)
LABELS = [i % 4 for i in range(20)]


def write_both(folder: Path, **names: str) -> Path:
    write_parquet(folder / "train-00000-of-00001.parquet", TRAIN, LABELS, **names)
    write_parquet(folder / "test-00000-of-00001.parquet", TEST, LABELS[:8], **names)
    return folder


@pytest.mark.parametrize(
    "names", [{}, {"image": "image"}, {"image": "image", "label": "fine_label"}]
)
def test_what_comes_out_is_what_went_in(tmp_path: Path, names: dict[str, str]):
    write_both(tmp_path / "hub", **names)
    out = tmp_path / "out"
    assert main(["prepare", str(tmp_path / "hub"), "--out", str(out)]) == 0
    images = load_images(str(out))
    assert np.array_equal(images.train.numpy(), TRAIN)
    assert np.array_equal(images.valid.numpy(), TEST)
    assert images.train_labels.tolist() == LABELS
    assert images.classes == 4
    assert images.mean == pytest.approx(TRAIN.mean(axis=(0, 1, 2)) / 255)
    assert images.std == pytest.approx(TRAIN.std(axis=(0, 1, 2)) / 255)


def test_repeated_prepare_changes_nothing_and_refuses_new_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_both(tmp_path / "hub")
    out = tmp_path / "out"
    command = ["prepare", str(tmp_path / "hub"), "--out", str(out)]
    assert main(command) == 0
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir()}
    assert main(command) == 0
    write_parquet(tmp_path / "hub" / "train-00001-of-00001.parquet", TRAIN, LABELS)
    assert main(command) == 2
    assert "give a new folder" in capsys.readouterr().err
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir()} == before


def test_a_broken_image_is_named_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_both(tmp_path / "hub")
    table = pa.table({"img": [{"bytes": b"no image", "path": None}], "label": [0]})
    pq.write_table(table, tmp_path / "hub" / "train-00001-of-00001.parquet")
    out = tmp_path / "out"
    assert main(["prepare", str(tmp_path / "hub"), "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "train-00001-of-00001.parquet: the image in row 0 cannot be read" in error
    assert sorted(p.name for p in out.iterdir()) == [".lock", "parts"]


def test_images_without_a_test_split_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write_parquet(tmp_path / "train.parquet", TRAIN, LABELS)
    assert main(["prepare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "there are no test images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_label_column_is_reported_with_existing_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_both(tmp_path / "hub")
    arguments = ["prepare", str(tmp_path / "hub"), "--out", str(tmp_path / "out"), "--label", "y"]
    assert main(arguments) == 2
    assert "has no column 'y'; it has img, label" in capsys.readouterr().err


def test_the_manifest_says_what_the_folder_holds(tmp_path: Path):
    write_both(tmp_path / "hub")
    main(["prepare", str(tmp_path / "hub"), "--out", str(tmp_path / "out")])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["content"] == "images"
    assert manifest["splits"] == {"train": {"images": 20}, "valid": {"images": 8}}
    assert manifest["files"]["train-images.bin"]["bytes"] == TRAIN.size
    assert manifest["shape"] == [6, 5, 3]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["cifar-10-python", "cifar-100-python"])
def test_cifars_own_archive_is_read_with_its_names(tmp_path: Path, kind: str, packed: bool):
    source = write_archive(tmp_path, kind, cifar_parts(kind), packed)
    out = tmp_path / "out"
    assert main(["prepare", str(source), "--out", str(out)]) == 0
    images = load_images(str(out))
    pixels = np.random.default_rng(1).integers(0, 256, (14, 32, 32, 3)).astype(np.uint8)
    assert np.array_equal(images.train.numpy(), pixels[:10])
    assert np.array_equal(images.valid.numpy(), pixels[10:])
    assert images.train_labels.tolist() == [i % 3 for i in range(10)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["names"] == ["airplane", "automobile", "bird"]


class Evil:
    """Runs something when it is unpickled in the usual way."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


def test_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    parts: dict[str, object] = dict(cifar_parts("cifar-10-python"))
    parts["data_batch_2"] = Evil(tmp_path / "mark")
    source = write_archive(tmp_path, "cifar-10-python", parts)
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "which is not allowed" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_a_cut_off_archive_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = write_archive(tmp_path, "cifar-10-python", cifar_parts("cifar-10-python"))
    source.write_bytes(source.read_bytes()[:-2000])
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cifar-10-python.tar.gz is damaged" in error
