# Sourced by every script: the repository as working folder, .env, and the facts that all scripts share.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

if [ -f .env ]; then
  exported=$(export -p)
  set -a; source ./.env; set +a
  eval "$exported" # what the shell exports wins
fi

if [ -z "${HARDWARE:-}" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then HARDWARE=gpu; else HARDWARE=cpu; fi
fi
export HARDWARE
# A Ray job runs in the cluster's own environment, which Ray passes on.
VENV=${VENV:-${RAY_JOB_CONFIG_JSON_ENV_VAR:+${VIRTUAL_ENV:-}}}
VENV=${VENV:-.venv}
