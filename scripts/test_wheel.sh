#!/usr/bin/env bash
# Build the wheel, install it into an empty environment outside the checkout, and use it there.
set -euo pipefail
cd "$(dirname "$0")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH VIRTUAL_ENV
"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
echo "Building the wheel and installing it into $work/venv ..."
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" .
"$python" -m pip install --quiet --constraint constraints.txt "$work"/retinanet-*.whl
cd "$work"
"$python" -c "import retinanet, sys; sys.exit(not retinanet.__file__.startswith('$work/venv'))"
ls "$work"/venv/lib/python*/site-packages/retinanet/py.typed >/dev/null
venv/bin/retinanet --help >help.txt
grep -q 'retinanet COMMAND' help.txt
venv/bin/retinanet config finetune_small >recipe.yaml
grep -q '^train:' recipe.yaml
venv/bin/retinanet demo
test -s runs/demo/checkpoints/best.pt
echo "the wheel works"
