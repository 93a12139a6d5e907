# Sourced by demo.sh and test.sh: an environment with the project in it, made once.
#
#   source scripts/setup.sh [EXTRAS]
#
# Uses the active virtual environment, else makes .venv. A stamp in the environment holds the
# checksum of pyproject.toml and the extras, so that a second run installs nothing.
if [ -z "${VIRTUAL_ENV:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    echo "Making .venv ..."
    "${PYTHON:-python3}" -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version) if sys.version_info < (3, 10) else None'
    "${PYTHON:-python3}" -m venv .venv || { rm -rf .venv; exit 1; }
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/.retinanet-${1:-core}"
wanted="$(pwd) $(cksum <pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $VIRTUAL_ENV (once; a few minutes) ..."
  python -m pip install --quiet --editable ".${1:+[$1]}"
  echo "$wanted" >"$stamp"
fi
