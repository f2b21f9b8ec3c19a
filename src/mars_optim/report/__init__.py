"""Pictures: an analysis -> figures -> one self-contained HTML file, Markdown, JSON."""

from .write import summary, write_report

__all__ = ["summary", "write_report"]
