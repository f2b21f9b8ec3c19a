"""timm's models and schedule, where timm can be imported (it needs torchvision)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mars_optim import MARS, param_groups

from ..test_frameworks_page import PAGE, block

timm: Any = pytest.importorskip(
    "timm", reason="timm or torchvision is missing", exc_type=ImportError
)
pytestmark = pytest.mark.filterwarnings("default")  # timm's own are not ours to fix

# model -> what of more than one dimension is kept from Newton-Schulz, numbers of blocks left out
KEPT = {
    "resnet18": {"head": {"fc.weight"}},
    "vit_tiny_patch16_224": {"embedding": {"cls_token", "pos_embed"}, "head": {"head.weight"}},
    "deit_tiny_distilled_patch16_224": {
        "embedding": {"cls_token", "dist_token", "pos_embed"},
        "head": {"head.weight", "head_dist.weight"},
    },
    "swin_tiny_patch4_window7_224": {
        "embedding": {"layers.blocks.attn.relative_position_bias_table"},
        "head": {"head.fc.weight"},
    },
    "convnext_atto": {"head": {"head.fc.weight"}, "other": {"stages.blocks.conv_dw.weight"}},
}


@pytest.mark.parametrize("name", KEPT)
def test_newton_schulz_gets_no_head_token_or_table_in_timm(name: str) -> None:
    with torch.device("meta"):
        groups = param_groups(timm.create_model(name), rule="muon")
    found: dict[str, set[str]] = {}
    for group in groups:
        for full, param in group["params"]:
            short = ".".join(part for part in full.split(".") if not part.isdigit())
            if param.ndim > 1 and group["kind"] != "matrix":
                found.setdefault(group["kind"], set()).add(short)
    assert found == KEPT[name]


@pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this copy of the package")
def test_timm_recipe_trains_and_schedule_reaches_every_group() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
    scope: dict[str, Any] = {"model": model, "epochs": 4}
    exec(block("timm"), scope)
    optimizer = scope["optimizer"]
    assert isinstance(optimizer, MARS)
    before = [group["lr"] for group in optimizer.param_groups]
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    scope["scheduler"].step(2)
    after = [group["lr"] for group in optimizer.param_groups]
    assert all(0 < now < then for now, then in zip(after, before, strict=True))
