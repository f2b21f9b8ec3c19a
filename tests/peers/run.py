"""Run peers' test suites on our optimizers: make test-peers. Nothing that is fetched is kept here.

    python tests/peers/run.py FOLDER [torch|timm|pytorch_optimizer ...]

FOLDER keeps timm's and pytorch_optimizer's source archives, from PyPI. torch publishes none:
TORCH_TESTS names the folder ``test`` of a copy of its source; without it that suite is skipped.
"""

from __future__ import annotations

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
VERSIONS = {"timm": "1.0.31", "pytorch_optimizer": "4.1.0"}


def pip(command: str, *arguments: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", *map(str, arguments)], check=True)


def source(suite: str, cache: Path) -> Path | None:
    """The folder that the suite runs in."""
    if suite == "torch":
        given = os.environ.get("TORCH_TESTS")
        return Path(given) if given else None
    folder = cache / f"{suite}-{VERSIONS[suite]}"
    if not folder.is_dir():
        pip("download", "--no-binary", suite, "--dest", cache, f"{suite}=={VERSIONS[suite]}")
        with tarfile.open(cache / f"{folder.name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return folder


def run(suite: str, folder: Path, site: Path) -> int:
    """The suite's status; its table is printed."""
    plugin, tests = SUITES[suite]
    path = os.pathsep.join(map(str, (HERE.parents[1] / "src", HERE, site)))
    options = ["-p", plugin, "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-q", "--tb", "short", tests],
        cwd=folder,
        env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=path),
    ).returncode


def main() -> int:
    cache = Path(sys.argv[1]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "site").is_dir():
        pip("install", "--target", cache / "site", "expecttest")  # torch's test helpers need it
    status = 0
    for suite in sys.argv[2:] or SUITES:
        if folder := source(suite, cache):
            status |= run(suite, folder, cache / "site")
        else:
            print("torch: SKIPPED whole. Its tests are in no package: TORCH_TESTS=pytorch/test")
    return status


if __name__ == "__main__":
    sys.exit(main())
