"""Pictures: an analysis -> figures -> one self-contained HTML file, Markdown, JSON."""

from .messages import LANGS, Lang, Messages
from .terminal import runs_summary, summary
from .write import write_report, write_runs_report

__all__ = [
    "LANGS",
    "Lang",
    "Messages",
    "runs_summary",
    "summary",
    "write_report",
    "write_runs_report",
]
