#!/usr/bin/env bash
# ECG question answering end to end: set-up, data, model, SFT on written answers, GRPO with the ECG grader from the SFT
# policy, export, evaluation before and after, summary and comparison page. Run it again to go on where it stopped;
# finished stages are not repeated.
#   bash scripts/run_grpo_ecg.sh [hydra overrides of configs/ecg_grpo.yaml ...]
#   e.g. ECG_DATA=~/ECG-Expert-QA bash scripts/run_grpo_ecg.sh trainer.total_training_steps=200 judge=served
set -euo pipefail
source "$(dirname "$0")/ecg.sh"
NUM_SAMPLES=${NUM_SAMPLES:-} # test questions of the evaluations; empty: all

recipe_start "${GRPO[@]}" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
python -m recipes.config ecg_sft "${SFT_CHOICES[@]}" >/dev/null # a mistake for SFT alone shows now
ecg_data
check_test_set "$PARQUET/grpo_test.parquet"
BASE_MODEL=$START_MODEL
train_sft "$PARQUET/grpo_valid.parquet"
# From here the policy and the KL term's reference are the SFT model, its LoRA adapter merged: verl's reference for an
# adapter is the model under it.
train_grpo "$PARQUET/grpo_train.parquet" "$PARQUET/grpo_valid.parquet" ${OVERRIDES[@]+"${OVERRIDES[@]}"}

evaluate() { # LABEL MODEL
  local results=$OUTPUT_DIR/results/$1
  stage "evaluate_$1" "$results" python -m recipes.evaluate --recipe ecg --dataset_path "$PARQUET/grpo_test.parquet" \
    --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"} \
    --model_name "$2" --output_dir "$results"
  RUNS+=("$1=$results")
}
RUNS=()
evaluate sft "$START_MODEL"
evaluate grpo "$MODELS/grpo"
python -m recipes.summary --runs "${RUNS[@]}" --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/summary"
[ "$RECIPE_MODEL" = tiny ] || evaluate base "$BASE_MODEL" # the tiny one's weights are random
python -m recipes.compare "${RUNS[@]}" --out_dir "$OUTPUT_DIR/comparison"
echo "talk to it: bash scripts/chat_with_model.sh --recipe ecg --output_dir $OUTPUT_DIR${THINK:+ --think}"
