#!/usr/bin/env bash
# Makes the virtual environment, or brings it up to date. Every other script calls this one; quick when nothing changed.
#   HARDWARE=cpu|gpu   which set of requirements (default: what the machine has)
#   VENV=.venv         where (default in a Ray job: the cluster's own environment)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

if [ -n "${RAY_JOB_CONFIG_JSON_ENV_VAR:-}" ]; then # the cluster's environment is the cluster's business
  "$VENV/bin/python" -c "import verl, verl_cpu" 2>/dev/null \
    || die "no recipes in the Ray cluster's $VENV; start Ray from an environment that scripts/setup.sh made on each node"
  exit 0
fi

case "$HARDWARE" in
  cpu) REQUIREMENTS=requirements-cpu.txt; OPTIONS=(--override requirements-cpu-overrides.txt) ;;
  gpu) REQUIREMENTS=requirements.txt; OPTIONS=()
       nvidia-smi -L >/dev/null 2>&1 || die "HARDWARE=gpu, but nvidia-smi finds no GPU; install the driver, or use HARDWARE=cpu" ;;
  *) die "HARDWARE=$HARDWARE is unknown; use cpu or gpu" ;;
esac
STAMP="$VENV/.clinical_rl_recipes"
FINGERPRINT="$HARDWARE $PWD $(cat requirements*.txt pyproject.toml scripts/setup.sh | sha256sum)"
holds() { compgen -G "$VENV/lib/python*/site-packages/$1-*.dist-info" >/dev/null; }
# The stamp alone is not enough: other tools, such as "uv sync", take packages out again.
[ "$(cat "$STAMP" 2>/dev/null)" = "$FINGERPRINT" ] && holds verl && holds torch && holds 'vllm*' && holds duckdb && exit 0

if [ ! -x "$VENV/bin/python" ]; then
  if command -v uv >/dev/null; then uv venv --quiet --seed "$VENV"; else python3 -m venv "$VENV"; fi \
    || die "cannot make $VENV; install Python 3.11 to 3.13 with its venv module (Debian: apt-get install python3-venv)"
fi
"$VENV/bin/python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
  || die "$VENV has $("$VENV/bin/python" -V): the SQL sandbox needs 3.11 or newer, and the pinned packages have no wheels for 3.14; remove $VENV and put another python3 first in PATH"

# uv resolves in seconds and, unlike pip, can leave a dependency out (requirements-cpu-overrides.txt).
UV=$(command -v uv || echo "$VENV/bin/uv")
[ -x "$UV" ] || "$VENV/bin/python" -m pip install --quiet uv || die "cannot install uv with pip; check the network"

# uv reads no pip configuration: hand over the index and the wheel folder that this machine's pip is told to use.
INDEX=${PIP_INDEX_URL:-$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
WHEELS=${PIP_FIND_LINKS:-$("$VENV/bin/python" -m pip config get global.find-links 2>/dev/null || true)}
OPTIONS+=(${INDEX:+--index-url "$INDEX"} ${WHEELS:+--find-links "$WHEELS"})

echo "setup: installing $REQUIREMENTS into $VENV (a few minutes and about 4 GB the first time)"
install() { "$UV" pip install --python "$VENV/bin/python" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@"; }
if ! install -r "$REQUIREMENTS"; then
  [ "$HARDWARE" = cpu ] || die "cannot install $REQUIREMENTS; see the lines above (network, disk, Python version)"
  echo "setup: trying PyTorch's CPU index"
  install --torch-backend cpu -r "$REQUIREMENTS" \
    || die "cannot install $REQUIREMENTS: no CPU build of torch here or on PyTorch's index; see the lines above"
fi
if [ "$HARDWARE" = gpu ]; then
  install --no-build-isolation flash-attn==2.8.3 \
    || echo "setup: flash-attn could not be built; going on with torch's own attention (slower, same results)"
fi
install --quiet --no-deps --editable .
echo "$FINGERPRINT" > "$STAMP"
echo "setup: $VENV is ready"
