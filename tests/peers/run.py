"""Run peers' test suites on our optimizers: make test-peers. Nothing fetched is kept in the repo.

timm's and pytorch_optimizer's tests come from their source archives on PyPI. torch publishes none:
TORCH_TESTS names the folder ``test`` of a copy of its source, and without it that suite is skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = {
    "torch": ("peers_torch", "test_optim.py"),
    "timm": ("timm_peers", "tests/test_optim.py"),
    "pytorch_optimizer": ("pytorch_optimizer_peers", "tests"),
}
SOURCES = {"timm": "timm==1.0.31", "pytorch_optimizer": "pytorch_optimizer==4.1.0"}


def pip(*arguments: str | Path) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--no-deps")
    command = [sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:]]
    subprocess.run(list(map(str, command)), check=True)


def fetched(source: str, cache: Path) -> Path:
    """The folder of a source archive of PyPI's, unpacked in ``cache``."""
    folder = cache / source.replace("==", "-")
    if not folder.is_dir():
        pip("download", "--no-binary", source.split("==")[0], "--dest", cache, source)
        with tarfile.open(folder.with_name(folder.name + ".tar.gz")) as archive:
            archive.extractall(cache, filter="data")
    return folder


def run(suite: str, folder: Path, site: Path, more: list[str]) -> int:
    """The suite's status; its table is printed."""
    plugin, tests = SUITES[suite]
    src = HERE.parents[1] / "src"
    env = dict(
        os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(map(str, (src, HERE, site)))
    )
    options = ["-p", plugin, "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"]
    options += ["-q", "--tb", "short", *more, tests]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=folder, env=env
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".venv/peers"))
    parser.add_argument("--torch-tests", type=Path, help="the folder test of torch's source")
    parser.add_argument("--suite", choices=SUITES, action="append", help="this one only")
    options, more = parser.parse_known_args()
    cache = options.cache.resolve()
    site = cache / "site"
    cache.mkdir(parents=True, exist_ok=True)
    if not site.is_dir():
        pip("install", "--target", site, "expecttest")  # torch's own test helpers import it
    status = 0
    for suite in options.suite or SUITES:
        folder = fetched(SOURCES[suite], cache) if suite in SOURCES else options.torch_tests
        if folder is None:
            print("torch: SKIPPED whole, for its tests are in no package: TORCH_TESTS=pytorch/test")
            continue
        if not (folder / SUITES[suite][1]).exists():
            parser.error(f"{folder} has no {SUITES[suite][1]}")
        status |= run(suite, folder, site, more)
    return status


if __name__ == "__main__":
    sys.exit(main())
