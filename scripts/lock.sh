#!/usr/bin/env bash
# Write constraints.txt, the versions that the tests run with. Arguments are passed to uv:
#
#   scripts/lock.sh                              after a change of pyproject.toml: keep what fits
#   scripts/lock.sh --upgrade                    use the newest releases that the ranges allow
#   scripts/lock.sh --upgrade-package torch      use the newest release of one package
#
# One file serves every platform and Python from 3.10 on. Nothing is installed except uv, in a
# temporary folder. Run scripts/test.sh before you commit the file.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=uv
if ! command -v uv >/dev/null; then
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
  "${PYTHON:-python3}" -m venv "$work"
  "$work/bin/python" -m pip install --quiet 'uv>=0.5,<1'
  uv="$work/bin/uv"
fi
"$uv" pip compile pyproject.toml --all-extras --universal --python-version 3.10 --quiet \
  --no-annotate --no-header --output-file constraints.txt "$@"
{
  echo "# The versions that the tests run with, on Python 3.11. Other Pythons are resolved, not tested."
  echo "# Written by scripts/lock.sh."
  cat constraints.txt
} >constraints.new
mv constraints.new constraints.txt
echo "wrote constraints.txt; now run scripts/test.sh"
