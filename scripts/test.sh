#!/usr/bin/env bash
# Sets everything up and runs the tests.
#   bash scripts/test.sh                         all: verl, Ray, vLLM and a browser included
#   bash scripts/test.sh --quick                 without the tests that start those, and other slow ones
#   bash scripts/test.sh [pytest arguments ...]  e.g. bash scripts/test.sh -k reward
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up

if [ "${1:-}" = --quick ]; then set -- -m "not slow" "${@:2}"; fi
ruff check .
ruff format --check --quiet .
# Two files at a time: with more, the tests that start vLLM would need more memory than a laptop has.
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
