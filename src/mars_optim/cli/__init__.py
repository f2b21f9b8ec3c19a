"""The command ``mars``. Each command's world is imported only when it runs."""

from .app import main

__all__ = ["main"]
