"""Pictures: an analysis -> figures -> one self-contained HTML file, Markdown, JSON."""

from .messages import LANGS, Lang, Messages
from .terminal import jobs_summary, runs_summary, summary
from .write import write_brief, write_jobs_report, write_report, write_runs_report

__all__ = [
    "LANGS",
    "Lang",
    "Messages",
    "jobs_summary",
    "runs_summary",
    "summary",
    "write_brief",
    "write_jobs_report",
    "write_report",
    "write_runs_report",
]
