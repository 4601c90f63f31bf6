#!/usr/bin/env bash
# Chats with a recipe's models in the terminal, or in a browser on this machine (--ui); sets everything up first.
# PRESET, OUTPUT_DIR and the other settings of a run say whose models, as for the script that trained them.
#   bash scripts/chat_with_model.sh [arguments of python -m recipes.chat ...]
#   e.g. PRESET=tiny bash scripts/chat_with_model.sh --recipe ehrsql --models base grpo --ui
set -euo pipefail
ARGUMENTS=("$@") CALLER_DIR=$PWD RECIPE=ecg
while [ $# -gt 0 ]; do
  case "$1" in
    --recipe) RECIPE=${2:-} ;;
    --recipe=*) RECIPE=${1#*=} ;;
  esac
  shift
done
case "$RECIPE" in
  ecg | ehrsql) ;;
  *) echo "chat_with_model.sh: --recipe $RECIPE is unknown; use ecg or ehrsql" >&2; exit 2 ;;
esac
source "$(dirname "$0")/$RECIPE.sh"
bash scripts/setup.sh
PATH=$(realpath "$VENV/bin"):$PATH
settings=$(python -m recipes.config "${GRPO[@]}")
eval "$settings" # RECIPE_*

RUN=(--output_dir "$(realpath -m "$OUTPUT_DIR")")
case "$RECIPE" in
  ecg) RUN+=(${THINK:+--think}) ;;
  ehrsql) RUN+=(--prompt "$RECIPE_PROMPT" ${EHR_DB:+--db_path "$EHR_DB"}) ;;
esac
cd "$CALLER_DIR" # its arguments may name files there
exec python -m recipes.chat "${RUN[@]}" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
