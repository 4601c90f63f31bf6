#!/usr/bin/env bash
# GRPO beside continued SFT and rejection-sampling fine-tuning, for RESULTS.md. Runs the recipe first where it has not run.
#   SEED=0 bash benchmarks/baselines_ehrsql.sh [the overrides that the recipe ran with ...]
set -euo pipefail
source "$(dirname "$0")/../scripts/env.sh"
export SEED=${SEED:-0} OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql_seed_${SEED:-0}}
bash scripts/run_grpo_ehrsql.sh "$@"

source scripts/ehrsql.sh
recipe_start ehrsql_sft "${CHOICES[@]}"
ehrsql_data
train_sft "$PARQUET/valid.parquet" # finished before: sets START_MODEL and what the stages below depend on
EVALUATE=(python -m recipes.evaluate --dataset_path "$PARQUET/test.parquet" --db_path "$DATABASE"
  --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"})
source benchmarks/baselines.sh
baselines "$PARQUET/train.parquet" "$PARQUET/valid.parquet" 1
compare_with start
