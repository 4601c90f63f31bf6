#!/usr/bin/env bash
# EHRSQL warm-up: supervised fine-tuning on the teacher's queries or, without a teacher, on gold SQL; from nothing to a
# model.
#   bash scripts/run_sft_ehrsql.sh [hydra overrides of configs/ehrsql_sft.yaml ...]
#   e.g. PRESET=smollm2_135m bash scripts/run_sft_ehrsql.sh sft_adapter=lora trainer.total_epochs=1
set -euo pipefail
source "$(dirname "$0")/ehrsql.sh"

recipe_start ehrsql_sft "${CHOICES[@]}" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
ehrsql_data
train_sft "$PARQUET/valid.parquet" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
echo "model: $START_MODEL"
