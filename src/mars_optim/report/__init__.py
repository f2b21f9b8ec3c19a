"""Pictures: an analysis -> figures -> one self-contained HTML file, Markdown, JSON."""

from .terminal import runs_summary, summary
from .words import LANGS, Lang, Words
from .write import write_report, write_runs_report

__all__ = [
    "LANGS",
    "Lang",
    "Words",
    "runs_summary",
    "summary",
    "write_report",
    "write_runs_report",
]
