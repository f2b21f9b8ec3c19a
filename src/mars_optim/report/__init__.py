"""Pictures: an analysis -> figures -> one self-contained HTML file, Markdown, JSON."""

from .terminal import summary
from .words import LANGS, Lang, Words
from .write import write_report

__all__ = ["LANGS", "Lang", "Words", "summary", "write_report"]
