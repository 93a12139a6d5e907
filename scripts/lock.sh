#!/usr/bin/env bash
# Write constraints.txt: the versions that the tests run with. Arguments go to uv:
#
#   scripts/lock.sh                              after a change of pyproject.toml: keeps what fits
#   scripts/lock.sh --upgrade                    the newest releases that the ranges admit
#   scripts/lock.sh --upgrade-package torch      the newest of one package
#
# One file serves every platform and Python from 3.10 on. Run scripts/test.sh before you commit it.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=dev,fast,timm versions=locked
source scripts/setup.sh
command -v uv >/dev/null || python -m pip install --quiet 'uv>=0.5,<1'
uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --quiet \
  --no-annotate --no-header --output-file constraints.txt "$@"
sed -i.old '1i\
# The versions that the tests run with, on Python 3.11. Other Pythons are resolved, not tested.\
# Written by scripts/lock.sh.' constraints.txt
rm constraints.txt.old
echo "wrote constraints.txt; now run scripts/test.sh"
