#!/usr/bin/env bash
# GRPO beside continued SFT and rejection-sampling fine-tuning, for RESULTS.md. Runs the recipe first where it has not run.
#   SEED=0 bash benchmarks/baselines_ecg.sh [the overrides that the recipe ran with ...]
set -euo pipefail
source "$(dirname "$0")/../scripts/env.sh"
export SEED=${SEED:-0} OUTPUT_DIR=${OUTPUT_DIR:-outputs/ecg_seed_${SEED:-0}}
bash scripts/run_grpo_ecg.sh "$@"

source scripts/ecg.sh
recipe_start ecg_sft "${CHOICES[@]}"
ecg_data
train_sft "$PARQUET/grpo_valid.parquet" # finished before: sets START_MODEL and what the stages below depend on
EVALUATE=(python -m recipes.evaluate --recipe ecg --dataset_path "$PARQUET/grpo_test.parquet"
  --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"})
source benchmarks/baselines.sh
# Answers that are half right count as correct elsewhere (data_prep/ecg_teacher.py), but are nothing to imitate: 0.8.
baselines "$PARQUET/grpo_train.parquet" "$PARQUET/grpo_valid.parquet" 0.8
compare_with sft
