#!/usr/bin/env bash
# Chats with a recipe's models in the terminal, or in a browser on this machine (--ui); sets everything up first.
# PRESET, OUTPUT_DIR and the other settings of a run say whose models, as for the script that trained them.
#   bash scripts/chat_with_model.sh [arguments of python -m recipes.chat ...]
#   e.g. PRESET=tiny bash scripts/chat_with_model.sh --recipe ehrsql --models base grpo --ui
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up
become recipes.chat "$@"
