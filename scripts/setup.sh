# Sourced by demo.sh and test.sh: create an environment with the project in it, once.
#
#   extras=dev,fast versions=locked
#   source scripts/setup.sh
#
# Without an active virtual environment this creates .venv with the versions of constraints.txt,
# which the tests run with. In an active environment the ranges of pyproject.toml apply instead;
# `versions=locked` applies constraints.txt there, too. `versions=newest` creates .venv-newest with
# the newest releases that the ranges allow. A stamp in the environment holds the checksums of the
# input files, so that a second run installs nothing.
place="${VIRTUAL_ENV:-.venv}"
if [ "${versions:-}" = newest ]; then place=.venv-newest; fi
if [ "$place" -ef .venv ] || [ "$place" = .venv ]; then versions="${versions:-locked}"; fi
if [ ! -x "$place/bin/python" ]; then
  if [ "$place" = "${VIRTUAL_ENV:-}" ]; then
    echo "error: VIRTUAL_ENV is $place, but there is no $place/bin/python: activate another environment, or unset VIRTUAL_ENV" >&2
    exit 2
  fi
  echo "Creating $place ..."
  "${PYTHON:-python3}" -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version) if sys.version_info < (3, 10) else None'
  "${PYTHON:-python3}" -m venv "$place" || { rm -rf "$place"; exit 1; }
fi
# shellcheck disable=SC1091
source "$place/bin/activate"
options=()
inputs=(pyproject.toml)
case "${versions:-}" in
  locked) options=(--constraint constraints.txt); inputs+=(constraints.txt) ;;
  newest) options=(--upgrade --upgrade-strategy eager) ;;
esac
stamp="$VIRTUAL_ENV/.retinanet-${extras:-core}"
wanted="$(pwd) ${versions:-ranges} $(cat "${inputs[@]}" | cksum)"
if [ "${versions:-}" = newest ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $VIRTUAL_ENV (once; a few minutes) ..."
  python -m pip install --quiet ${options[@]+"${options[@]}"} --editable ".${extras:+[$extras]}"
  echo "$wanted" >"$stamp"
fi
