#!/usr/bin/env bash
# EHRSQL end to end: set-up, data, model, SFT where the preset asks for it, GRPO with an execution reward, export,
# evaluation before and after, summary. Run it again to go on where it stopped; finished stages are not repeated.
#   bash scripts/run_grpo_ehrsql.sh [hydra overrides of configs/ehrsql_grpo.yaml ...]
#   e.g. PRESET=qwen2_5_1_5b bash scripts/run_grpo_ehrsql.sh algo=dapo adapter=lora trainer.total_training_steps=200
set -euo pipefail
source "$(dirname "$0")/ehrsql.sh"
NUM_SAMPLES=${NUM_SAMPLES:-} # test questions of the evaluations; empty: all

recipe_start "${GRPO[@]}" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
ehrsql_data
TEST_SET=$PARQUET/test.parquet
[ -f "$TEST_SET" ] || TEST_SET=$PARQUET/valid.parquet # EHRSQL's test labels may be missing
check_test_set "$TEST_SET"
yes_or_no recipe.sft.enabled "$RECIPE_SFT_ENABLED"
[ "$RECIPE_SFT_ENABLED" = False ] || train_sft "$PARQUET/valid.parquet"
train_grpo "$PARQUET/train.parquet" "$PARQUET/valid.parquet" ${OVERRIDES[@]+"${OVERRIDES[@]}"}

EVALUATE=(python -m recipes.evaluate --dataset_path "$TEST_SET" --db_path "$DATABASE"
  --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"})
RESULTS=$OUTPUT_DIR/results
stage evaluate_start "$RESULTS/start" "${EVALUATE[@]}" --model_name "$START_MODEL" --output_dir "$RESULTS/start"
stage evaluate_grpo "$RESULTS/grpo" "${EVALUATE[@]}" --model_name "$MODELS/grpo" --output_dir "$RESULTS/grpo"
python -m recipes.summary --runs start="$RESULTS/start" grpo="$RESULTS/grpo" \
  --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/summary"
