#!/usr/bin/env bash
# EHRSQL end to end: set-up, data, model, SFT where the preset asks for it, GRPO with an execution reward, export,
# evaluation before and after, summary. Run it again to go on where it stopped; finished stages are not repeated.
#   bash scripts/run_grpo_ehrsql.sh [hydra overrides of configs/ehrsql_grpo.yaml ...]
#   e.g. PRESET=qwen2_5_1_5b bash scripts/run_grpo_ehrsql.sh algo=dapo adapter=lora trainer.total_training_steps=200
set -euo pipefail
source "$(dirname "$0")/ehrsql_env.sh"

# --- adjust these, or set them in the environment or in .env ----------------------------------------------------------
NUM_SAMPLES=${NUM_SAMPLES:-} # test questions of the evaluations; empty: all
# A file of configs/hardware; by default the smallest that uses what is there.
HARDWARE_CONFIG=${HARDWARE_CONFIG:-$([ "$HARDWARE" = cpu ] && echo cpu || { [ "$(nvidia-smi -L | wc -l)" -ge 8 ] && echo gpu_8 || echo gpu_1; })}
# ----------------------------------------------------------------------------------------------------------------------

OVERRIDES=(preset="$PRESET" hardware="$HARDWARE_CONFIG" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"})
settings=$(python -m recipes.config ehrsql_grpo "${OVERRIDES[@]}")
eval "$settings"
python -m recipes.doctor --output_dir "$OUTPUT_DIR"
ehrsql_data
ehrsql_model

if [ "$RECIPE_SFT_ENABLED" = True ]; then
  bash scripts/run_sft_ehrsql.sh
  START_MODEL=$MODEL_DIR/sft UPSTREAM=$(stage_key export_sft)
fi
PARQUET=$DATA_DIR/parquet
TEST_SET=$PARQUET/test.parquet
[ -f "$TEST_SET" ] || TEST_SET=$PARQUET/valid.parquet
EVALUATE=(python -m recipes.evaluate --dataset_path "$TEST_SET" --db_path "$EHR_DB"
  --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH"
  ${NUM_SAMPLES:+--num_samples "$NUM_SAMPLES"})

set -x
training_stage grpo "$OUTPUT_DIR/grpo" python -m recipes.launch ehrsql_grpo "${OVERRIDES[@]}" \
  data.train_files="$PARQUET/train.parquet" \
  data.val_files="$PARQUET/valid.parquet" \
  data.seed="$SEED" \
  actor_rollout_ref.model.path="$START_MODEL" \
  trainer.default_local_dir="$OUTPUT_DIR/grpo"
stage export_grpo python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/grpo" --start_model "$START_MODEL" \
  --prompts "$PARQUET/valid.parquet" --out_dir "$MODEL_DIR/grpo"
stage evaluate_start "${EVALUATE[@]}" --model_name "$START_MODEL" --output_dir "$OUTPUT_DIR/results/start"
stage evaluate_grpo "${EVALUATE[@]}" --model_name "$MODEL_DIR/grpo" --output_dir "$OUTPUT_DIR/results/grpo"
python -m recipes.summary --runs start="$OUTPUT_DIR/results/start" grpo="$OUTPUT_DIR/results/grpo" \
  --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/summary"
