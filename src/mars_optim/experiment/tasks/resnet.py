"""ResNet-18 for small images (He et al. 2015): 3x3 stem, no max-pool."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_FACTORS = (1, 2, 4, 8)  # widths in units of the stem's; each stage but the first halves the image
_BLOCKS = 2  # in a stage


class ResNet18(nn.Module):
    """Seventeen 3x3 convolutions with batch norm in residual pairs, then a linear head.

    The ImageNet stem (7x7, stride 2, max-pool) would leave 8x8 of a 32x32 image. Convolutions are
    initialised as He et al.: N(0, 2 / fan out). 11.2 M parameters at width 64 and 10 classes.

    Args:
        classes: number of them.
        width: channels of the stem; the last stage has eight times as many.
        channels: of the images.
    """

    def __init__(self, classes: int, width: int = 64, *, channels: int = 3) -> None:
        super().__init__()
        self.stem = _conv(channels, width, 3)
        self.norm = nn.BatchNorm2d(width)
        blocks, before = [], width
        for stage, factor in enumerate(_FACTORS):
            for i in range(_BLOCKS):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(ResidualBlock(before, factor * width, stride))
                before = factor * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes) of logits."""
        x = F.relu(self.norm(self.stem(images)))
        logits: Tensor = self.head(self.blocks(x).mean(dim=(2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))), each convolution with its batch norm."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(before, width, 3, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != width:
            self.shortcut = nn.Sequential(_conv(before, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, before, height, width) -> (batch, width, height / stride, width / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def _conv(before: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, size, stride, padding=size // 2, bias=False)
