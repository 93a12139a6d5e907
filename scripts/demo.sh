#!/usr/bin/env bash
# Train, evaluate and use a detector on a drawn data set: about 5 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
exec python -m retinanet demo "$@"
