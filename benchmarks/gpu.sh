#!/usr/bin/env bash
# Everything that is claimed of mars-optim on a GPU, checked in one command; writes one JSON.
#
#     benchmarks/gpu.sh [result.json]
#
# Needs a CUDA build of torch (its triton comes along), pytest, pytest-timeout and hypothesis. PYTHON
# picks the interpreter. Takes a few minutes and 16 GB of the GPU's memory. The JSON is written after
# each part, so that a kill or a part that fails loses no other.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-$(command -v python3 || echo python)}" -m benchmarks.gpu --out "${1:-gpu.json}"
