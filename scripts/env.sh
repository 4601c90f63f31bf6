# Sourced by every script: the repository as working folder, and the two settings that set-up needs. The programs read all
# others, from the environment and from .env (recipes/pipeline/settings.py).
caller=$PWD
[ -z "${VENV:-}" ] || VENV=$(realpath -ms -- "$VENV")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# NAME: its value in .env, which is no program.
in_file() { [ ! -f .env ] || sed -n "s/^ *\(export \)\{0,1\}$1=//p" .env | tail -n 1 | tr -d "'\""; }
HARDWARE=${HARDWARE:-$(in_file HARDWARE)} VENV=${VENV:-$(in_file VENV)}
if [ -z "${HARDWARE:-}" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then HARDWARE=gpu; else HARDWARE=cpu; fi
fi
# A Ray job runs in the cluster's own environment, which Ray passes on.
VENV=${VENV:-${RAY_JOB_CONFIG_JSON_ENV_VAR:+${VIRTUAL_ENV:-}}}
export HARDWARE VENV=${VENV:-.venv}

set_up() { # from here, python is that of the environment
  bash scripts/setup.sh
  export PATH=$(realpath "$VENV/bin"):$PATH
}

become() { # MODULE [arguments...]: from the caller's folder, where files with relative names are, but never modules
  export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
  cd "$caller"
  exec python -P -m "$@"
}
