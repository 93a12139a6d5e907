#!/usr/bin/env bash
# Lint, types and tests. Arguments go to pytest: scripts/test.sh tests/test_boxes.py -k iou
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh dev,fast,timm
ruff check .
ruff format --check .
mypy
exec python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile "$@"
