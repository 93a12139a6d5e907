#!/usr/bin/env bash
# Lint, types and tests.
#
#   scripts/test.sh                       everything
#   scripts/test.sh --quick               without the slow tests: a few minutes
#   scripts/test.sh --newest              in an environment of its own, with the newest releases
#   scripts/test.sh --locked              in your environment, with the versions of constraints.txt
#   scripts/test.sh tests/test_boxes.py   other arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
extras=dev,fast,timm versions='' chosen=()
while true; do
  case "${1:-}" in
    --quick) chosen=(-m "not slow") ;;
    --newest) versions=newest ;;
    --locked) versions=locked ;;
    *) break ;;
  esac
  shift
done
source scripts/setup.sh
ruff check .
ruff format --check .
mypy
# The workers share the cores; threads that share a core wait for each other. A file stays with one
# worker, whose tests share what its fixtures have trained; slow files come first (tests/conftest.py).
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder \
  ${chosen[@]+"${chosen[@]}"} "$@"
