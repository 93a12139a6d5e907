#!/usr/bin/env bash
# Proves and measures on a GPU, in a few minutes, what cannot be proved without one.
#
#   scripts/prove_gpu.sh --data DATA             # DATA holds bccd/ and tiny_coco/
#   scripts/prove_gpu.sh --minutes 6             # time for everything (6)
#   scripts/prove_gpu.sh --only table mlperf     # some parts; --help lists them
#   scripts/prove_gpu.sh --site WHEELS           # packages from a folder, without an index
#   scripts/prove_gpu.sh --output FOLDER         # for logs and results.tar.gz (prove_gpu)
#   scripts/prove_gpu.sh --device cpu --small    # its own logic, without a GPU
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/prove_gpu.py" "$@"
