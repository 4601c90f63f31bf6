#!/usr/bin/env bash
# EHRSQL warm-up: supervised fine-tuning on the teacher's queries or, without a teacher, on gold SQL; from nothing to a
# model.
#   bash scripts/run_sft_ehrsql.sh [options of recipes.run] [hydra overrides of configs/ehrsql_sft.yaml ...]
#   e.g. PRESET=smollm2_135m bash scripts/run_sft_ehrsql.sh --lora_r 16 --num_epochs 1
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up
become recipes.run ehrsql --sft_only "$@"
