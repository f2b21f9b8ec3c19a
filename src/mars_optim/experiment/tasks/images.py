"""Images with labels: ResNet-18, batches addressed by (seed, step), crops and flips too."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .address import seed_of
from .prepared import fingerprint, memory_map, read_manifest
from .resnet import ResNet18

_PADDING = 4  # black pixels on each side, out of which a crop is taken
_CHUNK = 500  # images evaluated at a time


@dataclass(frozen=True, slots=True)
class Images:
    """Images to train on and to validate on.

    Args:
        train: uint8, (number, height, width, channels).
        train_labels: int64, (number,).
        valid: as ``train``.
        valid_labels: as ``train_labels``.
        classes: number of them.
        mean: of the training pixels, per channel, where white is 1.
        std: as ``mean``.
        fingerprint: hash of all that.
    """

    train: Tensor
    train_labels: Tensor
    valid: Tensor
    valid_labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


def load_images(folder: str) -> Images:
    """The images that ``mars prepare`` wrote into ``folder``, as memory maps.

    Raises:
        ValueError: in one line, if one of its files is missing or damaged.
    """
    path = Path(folder)
    manifest = read_manifest(path, "images")
    shape = tuple(manifest["shape"])

    def split(name: str) -> tuple[Tensor, Tensor]:
        pixels = memory_map(path / f"{name}-images.bin", torch.uint8)
        labels = memory_map(path / f"{name}-labels.bin", torch.uint16)
        return pixels.view(-1, *shape), labels.long()

    return Images(
        *split("train"),
        *split("valid"),
        classes=manifest["classes"],
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
        fingerprint=fingerprint(manifest, "shape", "classes", "mean", "std"),
    )


LEAST_LAST = 8
"""Width from which on images are channels last: on CPUs with AVX2, torch 2.13.0's convolutions of
fewer channels write beyond their memory in that format."""


class ImageTask:
    """ResNet-18 on images (see :class:`~mars_optim.experiment.tasks.Task`).

    An epoch is a shuffle of all training images, without repeats; each micro-batch of a step draws
    from shuffles of its own.

    Args:
        images: to train and validate on.
        batch: images in a batch.
        width: of the model.
        augment: random crops out of the image padded by 4, and random flips.
        subset: train on this many images, the same for every seed; 0 for all.
    """

    def __init__(
        self, images: Images, *, batch: int, width: int, augment: bool = True, subset: int = 0
    ) -> None:
        if subset > len(images.train):
            raise ValueError(
                f"task.subset = {subset} must be at most {len(images.train):,}, the number of "
                "training images"
            )
        self.images = images
        self.fingerprint = images.fingerprint
        self.batch_tokens = batch
        self.augment = augment
        self._width = width
        # files are often sorted by class: what is taken from them is taken from a shuffle
        self._chosen = _shuffled(len(images.train), "subset")[: subset or None].sort().values
        self._valid = _shuffled(len(images.valid), "valid")
        # only the shuffle of one epoch is needed at a time, but for the batch across its end
        self._epoch = functools.lru_cache(maxsize=16)(self._shuffle)
        # copied once: each copy would wait for the accelerator
        self._statistics = functools.lru_cache(maxsize=16)(self._copy_statistics)

    def build_model(self, seed: int) -> nn.Module:
        """A fresh ResNet-18; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of("model", seed))
            channels = self.images.train.shape[-1]
            return ResNet18(self.images.classes, self._width, channels=channels)

    def batch(self, seed: int, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """uint8 images (batch, height, width, channels), cropped and flipped, and their labels."""
        at = self._indices(seed, step, micro)
        pixels = self.images.train[at]
        if self.augment:
            generator = torch.Generator().manual_seed(seed_of("augment", seed, step, micro))
            pixels = crop_and_flip(pixels, generator)
        return pixels, self.images.train_labels[at]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy, nats per image."""
        pixels, labels = batch
        return F.cross_entropy(model(self._normalised(pixels)), labels)

    def evaluate(self, model: nn.Module, tokens: int) -> float:
        """Mean loss of ``tokens`` validation images."""
        return self.scores(model, tokens)["valid_loss"]

    @torch.no_grad()
    def scores(self, model: nn.Module, tokens: int) -> dict[str, float]:
        """``valid_loss`` and ``accuracy`` on ``tokens`` validation images, always the same."""
        chosen = self._valid[:tokens]
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        loss = right = 0.0
        for chunk in torch.split(chosen, _CHUNK):
            logits = model(self._normalised(self.images.valid[chunk].to(device))).float()
            labels = self.images.valid_labels[chunk].to(device)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(1) == labels).sum())
        model.train(was_training)
        return {"valid_loss": loss / len(chosen), "accuracy": right / len(chosen)}

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Bytes to numbers where the model is: a quarter of the transfer, channels last in memory,
        in which convolutions are faster (the weights need not be: see docs/data.md)."""
        shift, scale = self._statistics(pixels.device)
        images = ((pixels - shift) / scale).permute(0, 3, 1, 2)
        return images if self._width >= LEAST_LAST else images.contiguous()

    def _copy_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        statistics = [self.images.mean, self.images.std]
        shift, scale = 255 * torch.tensor(statistics, dtype=torch.float32, device="cpu")
        return shift.to(device), scale.to(device)

    def _indices(self, seed: int, step: int, micro: int) -> Tensor:
        """Which images are in a batch: the next ones of the endless row of shuffles."""
        total, first = len(self._chosen), step * self.batch_tokens
        parts, missing = [], self.batch_tokens
        while missing:
            epoch, offset = divmod(first, total)
            part = self._epoch(seed, micro, epoch)[offset : offset + missing]
            parts.append(part)
            first, missing = first + len(part), missing - len(part)
        return torch.cat(parts)

    def _shuffle(self, seed: int, micro: int, epoch: int) -> Tensor:
        return self._chosen[_shuffled(len(self._chosen), "shuffle", seed, micro, epoch)]


def _shuffled(count: int, *address: object) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of(*address))
    return torch.randperm(count, generator=generator, device="cpu")


def crop_and_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 pixels each way over black, and mirrored half of the time.

    Args:
        pixels: (batch, height, width, channels).
        generator: of the shifts and flips.
    """
    batch, height, width, _ = pixels.shape
    shifts = torch.randint(2 * _PADDING + 1, (2, batch, 1), generator=generator, device="cpu")
    mirrored = torch.rand(batch, 1, generator=generator, dtype=torch.float32, device="cpu") < 0.5
    padded = F.pad(pixels, (0, 0, _PADDING, _PADDING, _PADDING, _PADDING))
    columns = torch.arange(width, device="cpu").expand(batch, width)
    columns = torch.where(mirrored, columns.flip(1), columns) + shifts[1]
    rows = torch.arange(height, device="cpu") + shifts[0]
    images = torch.arange(batch, device="cpu")
    return padded[images[:, None, None], rows[:, :, None], columns[:, None, :]]
