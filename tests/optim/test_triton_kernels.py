"""The Triton kernels without a GPU: in Triton's interpreter and through its compiler.

What they compute is compared with the oracle in ``triton_parity.py`` and ``triton_dtypes.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mars_optim
from mars_optim.optim import backends
from mars_optim.optim.backends import Bucket
from mars_optim.optim.backends.cuda import triton_backend, triton_tables

from .test_kernels import settings_of

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def run_python(*arguments: str, **environment: str) -> None:
    """A process of its own, in which Triton is not imported yet."""
    source = str(Path(mars_optim.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def run_parity(**environment: str) -> None:
    parity = [str(Path(__file__).with_name(f"triton_{name}.py")) for name in ("parity", "dtypes")]
    run_python("-m", "pytest", *parity, "-q", "-p", "no:cacheprovider", **environment)


@needs_triton
@pytest.mark.slow
def test_kernels_equal_the_oracle_in_tritons_interpreter() -> None:
    run_parity(TRITON_INTERPRET="1")


@pytest.mark.slow
def test_package_works_without_triton() -> None:
    run_python(
        "-c",
        "import sys; sys.modules['triton'] = None  # no import of it succeeds\n"
        "import torch, mars_optim\n"
        "x = torch.nn.Parameter(torch.ones(3)); x.grad = torch.ones(3)\n"
        "mars_optim.MARSAdamW([x], optimize_1d=True).step()\n"
        "assert x[0] < 1\n",
    )


@pytest.mark.slow
def test_kernels_are_not_loaded_where_they_are_not_used() -> None:
    run_python(
        "-c",
        "import sys, torch, mars_optim\n"
        "x = torch.nn.Parameter(torch.ones(3)); x.grad = torch.ones(3)\n"
        "mars_optim.MARSAdamW([x], optimize_1d=True).step()\n"
        "assert not [name for name in sys.modules if name.endswith('triton_kernels')]\n",
    )


# --- through the compiler ------------------------------------------------------------------------

INT64, FLOAT32 = "*i64", "fp32"
COMMON: dict[str, str] = {
    **dict.fromkeys("gs lasts sizes first tensor_of".split(), INT64),
    **{"found_inf": "*fp32", "grad_scale": "*fp32", "gain": FLOAT32, "gamma_at": "*fp64"},
}
FLAGS: dict[str, Any] = dict(takes_difference=True, aligned=True, chunk=4096, block=1024)


def compiled(
    name: str, capability: int, signature: dict[str, str], constants: dict[str, Any]
) -> str:
    """The PTX that Triton makes of a kernel for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"{backends.__name__}.cuda.triton_kernels"), name)
    names = kernel.arg_names
    pointers = [arg for arg, kind in signature.items() if kind.startswith("*")]
    source = ASTSource(
        kernel,
        signature={arg: signature.get(arg, "constexpr") for arg in names},
        constexprs={(names.index(arg),): value for arg, value in constants.items()},
        attrs={(names.index(arg),): [["tt.divisibility", 16]] for arg in pointers},
    )
    ptx: str = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
    return ptx


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.slow_but_one
@needs_triton
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kernels_compile_to_wide_loads_for_gpus(dtype: str, capability: int) -> None:
    import triton.language as tl

    element = getattr(tl, dtype)
    types = dict(g_type=element, last_type=tl.bfloat16)
    norm = compiled("norm_kernel", capability, {**COMMON, "partials": "*fp32"}, {**types, **FLAGS})
    update = compiled(
        "update_kernel",
        capability,
        {
            **COMMON,
            **dict.fromkeys("xs ms vs v_maxs steps".split(), INT64),
            **dict.fromkeys("gamma beta1_rest beta2_rest eps".split(), FLOAT32),
            "scalars": "*fp32",
        },
        {
            **types,
            **FLAGS,
            **dict(x_type=element, m_type=element, v_type=tl.float32, v_max_type=tl.float32),
            **dict(adamw=True, amsgrad=True, maximize=True, remembers=True, folds=False),
            "by_chance": dtype == "bfloat16",
        },
    )
    for ptx in (norm, update):
        assert re.search(r"ld\.global\.v4\.b32", ptx)
    assert re.search(r"st\.global\.v4\.b32", update)


@needs_triton
@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("shards", [False, True])
def test_scalars_of_a_step_are_made_in_float64(shards: bool) -> None:
    signature = {
        **dict.fromkeys(["steps", "first"], INT64),
        **dict.fromkeys(["scalars", "found_inf", "lr_tensor"], "*fp32"),
        **dict.fromkeys("lr weight_decay clip log2_beta1 log2_beta2".split(), FLOAT32),
        "norms" if shards else "partials": "*fp32",
    }
    constants = {"partials" if shards else "norms": None, "adamw": True, "lanes": 256}
    assert "sqrt.rn.f64" in compiled("scalars_kernel", 90, signature, constants)


# --- which tensors are taken ---------------------------------------------------------------------


def bucket(rule: Any = "adamw", **changes: Any) -> Bucket:
    params = [torch.ones(4, 3), torch.ones(5)]
    states: list[dict[str, Tensor]] = [{}, {}]
    for param, state in zip(params, states, strict=True):
        backends.init_state(
            param, state, backends.state_dtypes(param.dtype, settings_of(rule="adamw"))
        )
    states[1].update(changes.pop("state", {}))
    grads = [torch.ones(4, 3), changes.pop("grad", torch.ones(5))]
    return Bucket(params, grads, states, settings_of(rule=rule))


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "float64 moment": (
        {"state": {"exp_avg": torch.ones(5).double()}},
        "exp_avg has dtype torch.float32 and torch.float64",
    ),
    "missing moment": ({"state": {"max_exp_avg_sq": torch.ones(5)}}, "a state that others lack"),
    "strided gradient": ({"grad": torch.ones(10)[::2]}, "differ in their layout"),
    "step": ({"state": {"step": torch.tensor(1)}}, "a step is not counted in torch.float32"),
    "subclass": (
        {"grad": torch.ones(5).as_subclass(type("Mine", (Tensor,), {}))},
        "Mine tensors need the multi-tensor path",
    ),
}


def test_kernels_are_for_cuda() -> None:
    told = triton_backend.why_not(bucket())
    assert told == "there are Triton kernels for CUDA, not for device 'cpu'"


@pytest.mark.parametrize(("changes", "reason"), UNFIT.values(), ids=UNFIT)
def test_reason_against_the_kernels_is_told(changes: dict[str, Any], reason: str) -> None:
    told = triton_backend.tensors_unfit(bucket(**changes))
    assert told is not None
    assert reason in told


def test_matrix_rules_and_float64_are_refused() -> None:
    told = triton_backend.tensors_unfit(bucket("muon"))
    assert "rule='muon'" in str(told)
    floats = bucket()
    doubles = replace(floats, params=[x.double() for x in floats.params])
    told = triton_backend.tensors_unfit(doubles)
    assert told == "parameter has dtype torch.float64"


def test_transposed_parameters_need_gradients_laid_out_alike() -> None:
    settings = settings_of(rule="adamw")
    x = torch.ones(3, 4).t()
    state: dict[str, Tensor] = {}
    backends.init_state(x, state, backends.state_dtypes(x.dtype, settings))
    alike = Bucket([x], [torch.empty_like(x)], [state], settings)
    assert triton_backend.tensors_unfit(alike) is None
    told = triton_backend.tensors_unfit(replace(alike, grads=[torch.ones(4, 3)]))
    assert "layout" in str(told)


# --- tables --------------------------------------------------------------------------------------


def test_tables_point_at_the_tensors_and_share_the_programs_out() -> None:
    chunk = triton_tables.CHUNK
    params = [torch.empty(n) for n in (1, 0, chunk, chunk + 1)]
    states = [{"exp_avg": torch.empty(2), "step": torch.zeros(())} for _ in params]
    tables = triton_tables.tables_of(params, states)
    count = len(params)
    assert tables.rows[0].tolist()[:count] == [x.data_ptr() for x in params]
    assert tables.rows[1].tolist()[:count] == [s["exp_avg"].data_ptr() for s in states]
    assert not tables.rows[2].any()
    assert tables.rows[5].tolist()[:count] == [s["step"].data_ptr() for s in states]
    assert tables.sizes.tolist()[:count] == [1, 0, chunk, chunk + 1]
    assert tables.first.tolist()[: count + 1] == [0, 1, 1, 2, 4]
    assert tables.tensor_of.tolist() == [0, 2, 3, 3]
    assert tables.programs == 4


def test_tables_are_made_anew_only_for_what_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = triton_tables._on_device
    monkeypatch.setattr(
        triton_tables, "_on_device", lambda *a: (made.append(a[0].numel()), original(*a))[1]
    )
    params = [torch.empty(7), torch.empty(9)]
    states = [{"exp_avg": torch.empty(7), "step": torch.zeros(())} for _ in params]
    grads = [torch.empty(7), torch.empty(9)]
    for _ in range(3):
        triton_tables.tables_of(params, states)
        triton_tables.addresses(grads)
    assert len(made) == 3  # rows, programs, gradients
    other = [torch.empty(7), torch.empty(9)]
    triton_tables.tables_of(params, states)
    triton_tables.addresses(other)
    assert made[3:] == [2]
    for _ in range(300):  # the oldest go
        triton_tables.addresses([torch.empty(1) for _ in range(3)])
    assert len(triton_tables._cache) <= triton_tables._KEPT
