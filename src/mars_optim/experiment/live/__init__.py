"""A running pilot as a page that keeps itself up to date: ``mars watch --serve``."""

from .serve import serve

__all__ = ["serve"]
