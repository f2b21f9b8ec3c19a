"""Any layout and shape of parameter, gradient and state: the oracle's step, or a refusal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mars_optim import MARS
from mars_optim.optim import reference
from mars_optim.optim.backends import Bucket
from mars_optim.optim.backends.cuda import triton_backend
from mars_optim.optim.hyperparameters import Settings
from tests.support.cases import needs_compiler
from tests.support.paths import ROOT

BUFFERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "last_grad")
PATHS: dict[str, dict[str, Any]] = {
    "auto": {},
    "foreach": {"foreach": True},
    "reference": {"foreach": False},
    "fused": {"fused": True},
}
KINDS: dict[str, dict[str, Any]] = {
    "approx": {"clip": 1.0},
    "plain": {"gamma": 0.0, "clip": None},
    "folded": {"correction": "folded", "clip": None},
    "amsgrad": {"amsgrad": True, "clip": None},
    "lion": {"rule": "lion", "clip": 0.3},
}
LAYOUTS = ("contiguous", "reversed", "swapped", "gaps", "odd address", "negative", "overlaps")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of ``x`` in memory of another layout, all around it NaN."""
    if layout == "reversed":
        dims = list(range(x.ndim))[::-1]
        return x.permute(dims).contiguous().permute(dims)
    if layout == "swapped" and x.ndim > 1:
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "gaps":
        wide = torch.full((*x.shape, 2), float("nan"), dtype=x.dtype)
        wide[..., 0] = x
        return wide[..., 0]
    if layout == "odd address":
        flat = torch.full((x.numel() + 2,), float("nan"), dtype=x.dtype)
        flat[1:-1] = x.reshape(-1)
        return flat[1:-1].view(x.shape)
    if layout == "negative":
        return torch._neg_view(-x)
    if layout == "overlaps" and x.ndim and x.shape[0]:
        return x[:1].expand(x.shape)  # another value than x: only for what is all equal
    return x.clone()


def refusal(optimizer: MARS) -> str:
    """Take a step; if it is refused, why."""
    try:
        optimizer.step()
    except ValueError as error:
        return str(error)
    return ""


@st.composite
def worlds(draw: Any) -> dict[str, Any]:
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=0, max_size=4)))
    pick = st.sampled_from(LAYOUTS[:-1])
    return {
        "shape": shape,
        "kind": draw(st.sampled_from(sorted(KINDS))),
        "path": draw(st.sampled_from(sorted(PATHS))),
        "x": draw(st.sampled_from(LAYOUTS[:-2])),  # the last two have no memory of their own
        "g": draw(pick),
        "states": {name: draw(st.sampled_from(LAYOUTS)) for name in BUFFERS},
        "wrong": draw(st.none() | st.sampled_from(BUFFERS)),
        "other": tuple(draw(st.lists(st.integers(0, 5), min_size=0, max_size=4))),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=300)
@given(world=worlds())
def test_a_step_in_any_layout_is_the_oracles_or_refused(world: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(world["seed"])
    shape, options = world["shape"], {**KINDS[world["kind"]], "optimize_1d": True}
    path = PATHS[world["path"]]

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    param = nn.Parameter(laid_out(draw(), world["x"]))
    optimizer = MARS([param], lr=0.1, betas=(0.9, 0.95), **options, **path)
    group = Settings.from_group(optimizer.param_groups[0])
    x = param.detach().clone(memory_format=torch.contiguous_format)
    wanted: reference.State = {"step": torch.tensor(3.0)}
    ours: reference.State = {"step": torch.tensor(3.0)}
    for name in BUFFERS:
        if name == "exp_avg" or KINDS[world["kind"]].get("rule") != "lion" or name == "last_grad":
            value = draw().square() if name != "last_grad" else draw()
            layout = world["states"][name]
            if layout == "overlaps" and value.ndim and value.shape[0]:
                value = value[:1].expand(shape)
            wanted[name], ours[name] = value.clone(), laid_out(value, layout)
    optimizer.state[param] = ours
    misfit = world["wrong"] in ours and world["other"] != shape
    if misfit:
        ours[world["wrong"]] = torch.randn(world["other"], dtype=torch.float64)
    refused = ""
    for _ in range(2):
        g = draw()
        param.grad = laid_out(g, world["g"])
        refused = refusal(optimizer)
        if refused:
            break
        assert not misfit
        reference.update([x], [g], [wanted], group)
    torch.testing.assert_close(param.detach(), x, rtol=1e-9, atol=1e-11)
    assert ours["step"] == wanted["step"]
    if refused:
        assert misfit or path == {"fused": True}, refused
        return
    for name in wanted:
        torch.testing.assert_close(optimizer.state[param][name], wanted[name], check_stride=False)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("resumed", [False, True], ids=["went on", "resumed"])
@pytest.mark.parametrize("first", [torch.channels_last, torch.contiguous_format], ids=str)
@needs_compiler
def test_memory_format_that_changes_in_a_run_changes_no_step(
    first: torch.memory_format, resumed: bool, path: dict[str, Any], kind: dict[str, Any]
) -> None:
    ends = []
    second = {
        torch.channels_last: torch.contiguous_format,
        torch.contiguous_format: torch.channels_last,
    }[first]
    for then in (first, second):
        generator = torch.Generator().manual_seed(0)
        model = nn.Conv2d(3, 8, 3, bias=False)
        with torch.no_grad():
            model.weight.normal_(generator=generator)
        model.to(memory_format=first)
        optimizer = MARS(model.parameters(), lr=1e-2, **kind, **path)
        for i in range(6):
            if i == 3:
                saved = optimizer.state_dict()
                model.to(memory_format=then)
                if resumed:
                    optimizer = MARS(model.parameters(), lr=1e-2, **kind, **path)
                    optimizer.load_state_dict(saved)
            g = torch.randn(8, 3, 3, 3, generator=generator)
            model.weight.grad = torch.empty_like(model.weight).copy_(g)
            optimizer.step()
        ends.append(model.weight.detach().clone(memory_format=torch.contiguous_format))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


def test_state_laid_out_anew_goes_back_to_the_fast_kernel() -> None:
    model = nn.Conv2d(3, 8, 3, bias=False).to(memory_format=torch.channels_last)
    optimizer = MARS(model.parameters())
    for memory_format in (torch.channels_last, torch.contiguous_format):
        model.to(memory_format=memory_format)
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        for name in BUFFERS:
            kept = optimizer.state[model.weight].get(name)
            assert kept is None or kept.stride() == model.weight.stride()


@pytest.mark.parametrize("wrong", [(3, 4), (12,), (4, 2), (5, 3)], ids=str)
@pytest.mark.parametrize("name", ["gradient", "exp_avg", "exp_avg_sq", "last_grad"])
def test_triton_is_given_no_address_of_another_shape(name: str, wrong: tuple[int, ...]) -> None:
    tensors = {n: torch.zeros(4, 3) for n in ("gradient", "exp_avg", "exp_avg_sq", "last_grad")}
    group = Settings.from_group(MARS([nn.Parameter(torch.zeros(4, 3))]).param_groups[0])

    def reason() -> str | None:
        grads, state = [tensors["gradient"]], {"step": torch.tensor(0.0), **tensors}
        return triton_backend.tensors_unfit(Bucket([torch.zeros(4, 3)], grads, [state], group))

    assert reason() is None
    tensors[name] = torch.zeros(wrong)
    assert reason() == f"a {name} has another shape than its parameter"


# --- the C file under AddressSanitizer ------------------------------------------------------------

SANITIZED = ROOT / "tests/support/sanitized.py"


def sanitizer() -> str | None:
    """Where gcc has its runtime, if it is there."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    command = [gcc, "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    return found if os.path.isabs(found) else None


def run_sanitized(tmp_path: Path, what: str) -> subprocess.CompletedProcess[str]:
    runtime = sanitizer()
    if runtime is None:
        pytest.skip("gcc with libasan is not installed")
    environment = {
        **os.environ,
        "CC": "gcc -fsanitize=address -g",
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "MARS_OPTIM_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(SANITIZED), what],
        env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip


@pytest.mark.slow
@needs_compiler
def test_no_step_touches_memory_that_is_not_its_own(tmp_path: Path) -> None:
    done = run_sanitized(tmp_path, "steps")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all steps taken" in done.stdout


@pytest.mark.slow
@needs_compiler
def test_the_sanitizer_would_have_seen_it(tmp_path: Path) -> None:
    done = run_sanitized(tmp_path, "overrun")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "update_blocks" in done.stderr
