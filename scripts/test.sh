#!/usr/bin/env bash
# Sets everything up and runs the tests.
#   bash scripts/test.sh [pytest arguments ...]   e.g. bash scripts/test.sh -k reward
set -euo pipefail
source "$(dirname "$0")/env.sh"
bash scripts/setup.sh
PATH=$(realpath "$VENV/bin"):$PATH

ruff check .
exec python -m pytest "$@"
