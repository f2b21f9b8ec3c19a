#!/usr/bin/env bash
# The arms on a GPT of 34 M parameters on one GPU: what `python -m benchmarks.gpu_study` says.
#
#     benchmarks/gpu_study.sh prepare DATA                 # here, with network
#     benchmarks/gpu_study.sh run DATA OUT [--minutes 9]   # on the GPU; again until it is finished
#     benchmarks/gpu_study.sh report OUT                   # anywhere
#
# The machine with the GPU needs no network: Python 3.12, a CUDA build of torch, numpy and scipy.
# What else is imported travels in DATA/wheels. PYTHON picks the interpreter.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
export PYTHONPATH="$root/src:$root${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-$(command -v python3 || echo python)}"
if [ "${1:-}" = run ] && compgen -G "${2:-}/wheels/*.whl" >/dev/null &&
  ! "$python" -c 'import pydantic, tomlkit' 2>/dev/null; then
  site="$(mktemp -d)"
  trap 'rm -rf "$site"' EXIT
  for wheel in "$2"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$site"
  done
  export PYTHONPATH="$PYTHONPATH:$site"
fi
"$python" -m benchmarks.gpu_study "$@"
