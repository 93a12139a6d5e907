#!/usr/bin/env bash
# Train and evaluate a small detector on a drawn data set. Takes about 5 minutes on two cores.
#
#   scripts/demo.sh [--locked] [--output DIR]    --locked: in your environment, with the versions of
#                                                constraints.txt
set -euo pipefail
cd "$(dirname "$0")/.."
# The caller's shell has not activated .venv, so the printed commands must include its path.
[ -n "${VIRTUAL_ENV:-}" ] || export RETINANET_COMMAND=.venv/bin/retinanet
extras='' versions=''
if [ "${1:-}" = --locked ]; then versions=locked; shift; fi
source scripts/setup.sh
exec python -m retinanet demo "$@"
