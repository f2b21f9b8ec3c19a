"""``mars watch`` beside a pilot, both in real processes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.support.small_pilot import MARS, Pilot


def start_watching(pilot: Pilot) -> subprocess.Popen[str]:
    command = [*MARS, "watch", str(pilot.out), "--every", "0.1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_watch_ends_with_its_pilot_and_ctrl_c_ends_only_watching(
    new_pilot: Callable[[], Pilot],
) -> None:
    pilot = new_pilot()
    running = pilot.start()
    assert running.stdout is not None
    for line in running.stdout:  # until the pilot's folder is a pilot's
        if "1/" in line:
            break
    watching, leaving = start_watching(pilot), start_watching(pilot)
    assert leaving.stdout is not None
    leaving.stdout.readline()
    leaving.send_signal(signal.SIGINT)
    rest = leaving.communicate(timeout=60)
    assert leaving.returncode == 130, rest
    assert rest[1] == ""

    running.communicate(timeout=240)
    assert running.returncode == 0
    stdout, stderr = watching.communicate(timeout=60)
    assert watching.returncode == 0, stderr
    assert stderr == ""
    assert "The pilot has ended." in stdout
    runs = len(pilot.finished())
    assert f"{runs} of {runs} runs done" in stdout
    assert f"{runs}/{runs}  " in stdout
    assert "Paired with adamw" in stdout
    assert "INTERIM" not in stdout[stdout.index("has ended") :]
