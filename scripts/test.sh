#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: scripts/test.sh tests/test_boxes.py -k iou
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh dev,fast,timm
ruff check .
ruff format --check .
mypy
# The workers share the cores; threads that share a core wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile "$@"
