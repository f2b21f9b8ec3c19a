"""The tasks of the fine-tuning study: `mars init finetune`, continuing studies/checkpoint."""

import sys
from pathlib import Path

TEMPLATE = Path(__file__).parents[3] / "src" / "mars_optim" / "cli" / "templates" / "finetune"
sys.path.insert(0, str(TEMPLATE))

from finetune import Full, Lora  # noqa: E402

CHECKPOINT = "studies/checkpoint"  # made by checkpoint.py


def lora() -> Lora:
    """LoRA on every linear layer."""
    return Lora(model=CHECKPOINT)


def full() -> Full:
    """All weights."""
    return Full(model=CHECKPOINT)
