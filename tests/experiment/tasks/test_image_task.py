"""Images: batches that can be paired, crops and flips by address, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mars_optim.errors import UserError
from mars_optim.experiment.plan import Plan
from mars_optim.experiment.plan.plan_file import make_plan
from mars_optim.experiment.plan.task import ImagesPlan
from mars_optim.experiment.tasks import ResNet18, check_task, load_images
from mars_optim.experiment.tasks.images import crop_and_flip
from tests.support.pictures import picture_task, pictures, write_pictures

ADDRESSES = [(seed, step, micro) for seed in (0, 1, 11) for step in (0, 1, 11) for micro in (0, 1)]


def test_the_task_keeps_the_protocol(tmp_path: Path):
    check_task(picture_task(tmp_path))


def test_an_image_batch_is_a_function_of_its_address_alone(tmp_path: Path):
    task, again = picture_task(tmp_path), picture_task(tmp_path, width=3)
    first = {a: task.batch(*a) for a in ADDRESSES}
    for a in reversed(ADDRESSES):
        torch.manual_seed(a[0])
        for x, y in zip(first[a], again.batch(*a), strict=True):
            assert torch.equal(x, y)
    assert len({str(pixels.tolist()) for pixels, _ in first.values()}) == len(ADDRESSES)


def test_epoch_takes_every_image_once_in_a_new_order(tmp_path: Path):
    task = picture_task(tmp_path, augment=False)  # 60 images, 8 a batch: 15 batches are 2 epochs
    drawn = torch.cat([task._indices(0, step, 0) for step in range(15)])
    first, second = drawn[:60], drawn[60:]
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(60))
    assert not torch.equal(first, second)
    pixels, labels = task.batch(0, 7, 0)
    assert torch.equal(pixels, task.images.train[drawn[56:64]])
    assert torch.equal(labels, task.images.train_labels[drawn[56:64]])


def test_subset_is_equal_for_every_seed_and_has_all_classes(tmp_path: Path):
    task = picture_task(tmp_path, subset=12, augment=False)
    seen = {
        seed: {i for step in range(3) for i in task._indices(seed, step, 0).tolist()}
        for seed in (0, 1)
    }
    assert len(seen[0]) == 12
    assert seen[0] == seen[1]
    assert set(task.images.train_labels[list(seen[0])].tolist()) == {0, 1, 2}


def test_a_batch_larger_than_the_subset_runs_through_it_again(tmp_path: Path):
    task = picture_task(tmp_path, subset=5, batch=12)
    assert len(task.batch(0, 0, 0)[0]) == 12


def test_crops_and_flips_are_windows_of_the_padded_image():
    pixels = torch.from_numpy(pictures(200, size=8)[0])
    moved = crop_and_flip(pixels, torch.Generator().manual_seed(0))
    padded = F.pad(pixels, (0, 0, 4, 4, 4, 4))
    places = set()
    for image, out in zip(padded, moved, strict=True):
        found = [
            (y, x, flip)
            for y in range(9)
            for x in range(9)
            for flip in (False, True)
            if torch.equal(
                out, image[y : y + 8, x : x + 8].flip(1) if flip else image[y : y + 8, x : x + 8]
            )
        ]
        assert found
        places.update(found)
    assert {y for y, _, _ in places} == {x for _, x, _ in places} == set(range(9))
    assert {flip for *_, flip in places} == {False, True}


def test_without_augmentation_the_images_come_as_they_are(tmp_path: Path):
    task = picture_task(tmp_path, augment=False)
    pixels, _ = task.batch(3, 4, 5)
    assert torch.equal(pixels, task.images.train[task._indices(3, 4, 5)])


class Seen(nn.Module):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return self.bias.expand(len(x), 3)


def test_model_sees_training_images_with_mean_0_and_deviation_1(tmp_path: Path):
    task, model = picture_task(tmp_path, augment=False, batch=60, width=8), Seen()
    loss = task.loss(model, task.batch(0, 0, 0))
    assert loss.item() == pytest.approx(1.0986123, rel=1e-6)  # ln 3
    x = model.inputs[0]
    assert x.shape == (60, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert x.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], rel=1e-5)


def test_scores_are_loss_and_accuracy_over_all_classes(tmp_path: Path):
    task = picture_task(tmp_path)
    model = task.build_model(0)
    scores = task.scores(model, 10**6)
    model.eval()
    logits = model(task._normalised(task.images.valid)).detach()
    loss = F.cross_entropy(logits, task.images.valid_labels)
    assert list(scores) == ["valid_loss", "accuracy"]
    assert scores["valid_loss"] == pytest.approx(loss.item(), rel=1e-5)
    right = logits.argmax(1) == task.images.valid_labels
    assert scores["accuracy"] == pytest.approx(right.float().mean().item())
    assert task.evaluate(model, 10**6) == scores["valid_loss"]
    assert set(task.images.valid_labels[task._valid[:12]].tolist()) == {0, 1, 2}


def test_narrow_models_do_not_see_channels_last(tmp_path: Path):
    """Fewer than eight channels in that format: torch's convolutions write beyond their memory."""
    task, model = picture_task(tmp_path, augment=False), Seen()
    task.loss(model, task.batch(0, 0, 0))
    assert model.inputs[0].is_contiguous()


@pytest.mark.slow
def test_a_resnet_learns_colours(tmp_path: Path):
    task = picture_task(tmp_path, augment=False)
    model = task.build_model(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(20):
        optimizer.zero_grad()
        task.loss(model, task.batch(0, step, 0)).backward()
        optimizer.step()
    assert task.scores(model, 30)["accuracy"] > 0.9


@pytest.mark.parametrize(("classes", "parameters"), [(10, 11_173_962), (100, 11_220_132)])
def test_resnet18_has_the_published_size(classes: int, parameters: int):
    with torch.device("meta"):
        model = ResNet18(classes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, classes)
    assert model.blocks(torch.empty(2, 64, 32, 32, device="meta")).shape == (2, 512, 4, 4)


def test_convolutions_start_as_he_et_al():
    torch.manual_seed(0)
    for module in ResNet18(10, width=16).modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def damage(folder: Path, case: str) -> None:
    file = folder / "train-images.bin"
    if case == "missing":
        file.unlink()
    elif case == "short":
        os.truncate(file, 100)
    elif case == "flipped":
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(content)
    elif case == "no manifest":
        (folder / "manifest.json").unlink()
    elif case == "version":
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    elif case == "content":
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"images"', '"tokens"', 1))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "train-images.bin is missing"),
        ("short", "train-images.bin has 100 bytes, and the manifest says 11,520"),
        ("flipped", "train-images.bin is damaged"),
        ("no manifest", "has no manifest.json"),
        ("version", "its format is version 99, and this mars-optim reads 1"),
        ("content", "holds tokens, not images"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(tmp_path: Path, case: str, message: str):
    folder = write_pictures(tmp_path / "p")
    load_images(str(folder))
    damage(folder, case)
    with pytest.raises(ValueError, match=message) as error:
        load_images(str(folder))
    assert "\n" not in str(error.value)


def test_a_copy_is_read_through_once_and_then_known(tmp_path: Path):
    folder = write_pictures(tmp_path / "p")
    shutil.copytree(folder, tmp_path / "q", copy_function=shutil.copyfile)
    (tmp_path / "q" / "verified.json").unlink()
    load_images(str(tmp_path / "q"))
    assert (tmp_path / "q" / "verified.json").exists()
    assert load_images(str(folder)).fingerprint == load_images(str(tmp_path / "q")).fingerprint


def test_more_images_than_there_are_cannot_be_a_subset(tmp_path: Path):
    with pytest.raises(ValueError, match=r"task\.subset = 61 must be at most 60"):
        picture_task(tmp_path, subset=61)


def test_image_plan_needs_a_folder_and_refuses_gpt_keys():
    with pytest.raises(UserError, match=r"task\.corpus must be a folder of images"):
        Plan(task=ImagesPlan())
    with pytest.raises(UserError, match=r"task\.layers = 3 needs kind = 'gpt'"):
        make_plan({"task": {"kind": "images", "corpus": "x", "layers": 3}})
    with pytest.raises(UserError, match=r"task\.subset = 3 needs kind = 'images'"):
        make_plan({"task": {"subset": 3}})
    assert Plan(task=ImagesPlan(corpus="x", width=3)).task.augment
