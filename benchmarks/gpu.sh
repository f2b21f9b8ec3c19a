#!/usr/bin/env bash
# Everything that is claimed of mars-optim on a GPU, checked in one command; writes one JSON.
#
#     benchmarks/gpu.sh [result.json]
#
# Needs a CUDA build of torch (its triton comes along), pytest and hypothesis. PYTHON picks the
# interpreter. Takes a few minutes and 16 GB of the GPU's memory.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m benchmarks.gpu --out "${1:-gpu.json}"
