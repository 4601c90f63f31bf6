# Sourced by every script: the repository as working folder, .env, and the facts that all scripts share.
absolute_paths() { # what names a file or a folder, as seen from here
  local name
  for name in ECG_DATA ECG_TEACHER EHRSQL_DATA EHRSQL_TEACHER EHR_DB EHRSQL_DB OUTPUT_DIR VENV HF_HOME TMPDIR; do
    [ -z "${!name:-}" ] || export "$name=$(realpath -ms -- "${!name}")"
  done
}

absolute_paths # of the caller, who may be in another folder
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

if [ -f .env ]; then
  exported=$(export -p)
  set -a; source ./.env; set +a
  eval "$exported" # what the shell exports wins
  absolute_paths   # of .env, relative to the repository
fi

# Where it is set, as in many containers, each of a run's dozen processes compiles torch, vLLM and verl anew: 20 s each.
unset PYTHONDONTWRITEBYTECODE

if [ -z "${HARDWARE:-}" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then HARDWARE=gpu; else HARDWARE=cpu; fi
fi
export HARDWARE
# A Ray job runs in the cluster's own environment, which Ray passes on.
VENV=${VENV:-${RAY_JOB_CONFIG_JSON_ENV_VAR:+${VIRTUAL_ENV:-}}}
VENV=${VENV:-.venv}
