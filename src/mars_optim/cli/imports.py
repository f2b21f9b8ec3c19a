"""``mars report --from``: which runs are meant, from what stands on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..experiment.external.discovery import BETWEEN, RunsPlan
from ..experiment.external.imported import import_runs
from ..experiment.external.metric_files import headings, is_csv
from ..experiment.plan.plan_file import override
from ..experiment.plan.table import from_dict
from ..toml import read_toml


def import_from(sources: tuple[str, ...], sets: tuple[str, ...], out: Path) -> str:
    """Read existing runs into ``out``.

    Args:
        sources: a TOML file that names the runs; or patterns with {arm} and {seed}, folders, and
            CSV exports of W&B charts.
        sets: changes of single keys, as given to ``--set``.
        out: folder to write.

    Returns:
        What was read, in a line.

    Raises:
        UserError: naming what cannot be read or compared.
    """
    folder, data = Path(), dict[str, Any]()
    if len(sources) == 1 and sources[0].endswith(".toml"):
        path = Path(sources[0])
        folder, data = path.parent, read_toml(path, "`mars init runs` writes one")
    else:
        charts = [source for source in sources if _is_chart(source)]
        data = {"files": [s for s in sources if s not in charts], "charts": charts}
    for text in sets:
        override(data, text)
    return import_runs(from_dict(RunsPlan, data), folder, out)


def _is_chart(source: str) -> bool:
    if "{" in source or not Path(source).is_file() or not is_csv(source):
        return False
    return any(BETWEEN in column for column in headings(Path(source))[1:])
