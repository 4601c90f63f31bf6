#!/usr/bin/env bash
# EHRSQL warm-up: supervised fine-tuning on the training questions that come with gold SQL, from nothing to a model.
#   bash scripts/run_sft_ehrsql.sh [hydra overrides of configs/ehrsql_sft.yaml ...]
#   e.g. PRESET=smollm2_135m bash scripts/run_sft_ehrsql.sh sft_adapter=lora trainer.total_epochs=1
set -euo pipefail
source "$(dirname "$0")/ehrsql_env.sh"

OVERRIDES=(preset="$PRESET" sft_hardware="$HARDWARE" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"})
settings=$(python -m recipes.config ehrsql_sft "${OVERRIDES[@]}")
eval "$settings"
ehrsql_data
ehrsql_model

set -x
training_stage sft "$OUTPUT_DIR/sft" python -m recipes.launch ehrsql_sft "${OVERRIDES[@]}" \
  data.train_files="$DATA_DIR/parquet/sft_train.parquet" \
  data.val_files="$DATA_DIR/parquet/sft_valid.parquet" \
  model.path="$START_MODEL" \
  trainer.seed="$SEED" \
  trainer.default_local_dir="$OUTPUT_DIR/sft"
stage export_sft python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/sft" --start_model "$START_MODEL" \
  --prompts "$DATA_DIR/parquet/valid.parquet" --out_dir "$MODEL_DIR/sft"
