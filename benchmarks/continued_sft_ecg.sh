#!/usr/bin/env bash
# What GRPO is compared with in RESULTS.md: SFT continued on the same written answers for as long as GRPO took.
# Runs the demo recipe first where it has not run.
#   SEED=0 bash benchmarks/continued_sft_ecg.sh [the overrides that the recipe ran with ...]
set -euo pipefail
source "$(dirname "$0")/../scripts/env.sh"
export SEED=${SEED:-0} OUTPUT_DIR=${OUTPUT_DIR:-outputs/ecg_seed_${SEED:-0}}
bash scripts/run_grpo_ecg.sh "$@"

source scripts/ecg.sh
recipe_start ecg_sft "${SFT_CHOICES[@]}"
ecg_data
train_sft "$PARQUET/grpo_valid.parquet" # finished before: sets START_MODEL and what the stages below depend on
source benchmarks/continued_sft.sh
RESULTS=$OUTPUT_DIR/results
continue_sft "$PARQUET/grpo_valid.parquet"
stage evaluate_continued_sft "$RESULTS/continued_sft" python -m recipes.evaluate --recipe ecg \
  --dataset_path "$PARQUET/grpo_test.parquet" --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" \
  ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"} --model_name "$MODELS/continued_sft" --output_dir "$RESULTS/continued_sft"
python -m recipes.summary --runs sft="$RESULTS/sft" continued_sft="$RESULTS/continued_sft" grpo="$RESULTS/grpo" \
  --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/with_continued_sft"
report_times
