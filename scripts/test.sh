#!/usr/bin/env bash
# Lint, types and tests.
#
#   scripts/test.sh                       everything
#   scripts/test.sh --quick               without the slow tests: a few minutes
#   scripts/test.sh --newest              in a separate environment, with the newest releases
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
# One thread per worker: threads that share a core slow each other down. All tests of a file run on
# one worker, because they share its trained fixtures. Slow files run first (tests/conftest.py).
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder \
  ${chosen[@]+"${chosen[@]}"} "$@"
