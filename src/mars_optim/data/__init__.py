"""From sources as they are found to folders that tasks read: ``mars prepare``."""

from .images import prepare_images

__all__ = ["prepare_images"]
