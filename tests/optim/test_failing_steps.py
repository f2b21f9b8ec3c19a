"""A counter moves when its step has been taken, and a step can be taken wherever torch's can."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from mars_optim import MARSAdamW
from mars_optim.optim import reference, rules
from mars_optim.optim.backends import fused
from mars_optim.optim.backends.cpu import native
from tests.support.cases import make_grads, needs_compiler


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("out of memory")


def begun(**options: Any) -> tuple[MARSAdamW, nn.Parameter, dict[str, Any]]:
    """An optimizer after two steps and before the third, and copies of all that it has."""
    param = nn.Parameter(torch.ones(4, 3))
    optimizer = MARSAdamW([param], **options)
    for step in range(3):
        param.grad = make_grads([param], step)[0]
        if step < 2:
            optimizer.step()
    before = {k: v.clone() for k, v in optimizer.state[param].items()}
    return optimizer, param, {**before, "param": param.detach().clone()}


def changed(param: nn.Parameter, state: dict[str, Any], before: dict[str, Any]) -> list[str]:
    now = {**state, "param": param}
    return [name for name in before if not torch.equal(now[name], before[name])]


FAILURES: dict[str, tuple[dict[str, Any], Any, str]] = {
    "native": ({}, native, "clip_norms"),
    "foreach": ({"foreach": True}, rules, "adamw_"),
    "fused": ({"gamma": 0.0, "clip": None}, torch, "_fused_adamw_"),
    "fused, clipped": ({"gamma": 0.0, "fused": True}, fused, "estimate"),
    "mixed": ({"foreach": True, "state_dtype": torch.bfloat16}, rules, "adamw_"),
}


@needs_compiler
@pytest.mark.parametrize(("options", "where", "what"), FAILURES.values(), ids=FAILURES)
def test_a_step_that_fails_is_not_counted(
    options: dict[str, Any], where: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "estimate":
        monkeypatch.setattr(native, "why_not", lambda *_: "not now")
    optimizer, param, before = begun(**options)
    with monkeypatch.context() as patch:
        patch.setattr(where, what, fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step()
    moved = changed(param, optimizer.state[param], before)
    # the multi-tensor path works in the memory of its state
    allowed = {"exp_avg", "last_grad"} if options == {"foreach": True} else set()
    assert set(moved) <= allowed
    optimizer.step()
    assert optimizer.state[param]["step"] == 3.0


def test_the_oracle_changes_nothing_before_it_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, param, before = begun(foreach=False)
    monkeypatch.setitem(reference.RULE_DIRECTIONS, "adamw", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    assert not changed(param, optimizer.state[param], before)


@needs_compiler
def test_a_listener_that_fails_leaves_the_step_untaken() -> None:
    optimizer, param, before = begun()
    optimizer.measure()
    telemetry = optimizer._runtime["telemetry"]
    assert telemetry is not None
    telemetry.add = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step()
    assert not changed(param, optimizer.state[param], before)


LATE = """
import atexit, sys, threading, time, torch
from mars_optim import MARSAdamW
torch.set_num_threads(2)
param = torch.nn.Parameter(torch.zeros(512, 1024))
optimizer = MARSAdamW([param])
param.grad = torch.ones_like(param)
def train():
    if sys.argv[1] == "thread":
        threading.main_thread().join()
        time.sleep(0.2)
    for _ in range(3):
        optimizer.step()
    print(float(optimizer.state[param]["step"]), param.min().item(), param.max().item())
if sys.argv[2] == "begun":
    optimizer.step()
    optimizer.state.clear()
    param.data.zero_()
match sys.argv[1]:
    case "now": train()
    case "atexit": atexit.register(train)
    case "thread": threading.Thread(target=train).start()
"""


def late(when: str, *, begun: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LATE, when, "begun" if begun else "anew"],
        env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("when", "begun"), [("thread", False), ("thread", True), ("atexit", True)])
def test_steps_are_taken_after_the_main_thread_has_ended(when: str, begun: bool) -> None:
    assert late(when, begun=begun) == late("now", begun=begun)
