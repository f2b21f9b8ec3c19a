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
python="${PYTHON:-$(command -v python3 || echo python)}"
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "benchmarks/gpu.sh: $python has no torch: set PYTHON to an interpreter that has" >&2
  exit 2
fi
exec "$python" -m benchmarks.gpu --out "${1:-gpu.json}"
