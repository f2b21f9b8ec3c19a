"""From sources as they are found to folders that tasks read: ``mars prepare``."""

from .images import prepare_images
from .token_shards import TokenOptions, prepare_tokens

__all__ = ["TokenOptions", "prepare_images", "prepare_tokens"]
