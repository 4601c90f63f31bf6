#!/usr/bin/env bash
# Chats with a recipe's models in the terminal, or in a browser on this machine (--ui); sets everything up first.
#   bash scripts/chat_with_model.sh [arguments of python -m recipes.chat ...]
#   e.g. bash scripts/chat_with_model.sh --recipe ehrsql --models base grpo --ui
set -euo pipefail
source "$(dirname "$0")/env.sh"
bash scripts/setup.sh
PATH=$(realpath "$VENV/bin"):$PATH

exec python -m recipes.chat "$@"
