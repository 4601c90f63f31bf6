#!/usr/bin/env bash
# EHRSQL end to end: set-up, data, model, SFT where the preset asks for it, GRPO with an execution reward, export,
# evaluation before and after, summary. Run it again to go on where it stopped; finished stages are not repeated.
#   bash scripts/run_grpo_ehrsql.sh [options of recipes.run] [hydra overrides of configs/ehrsql_grpo.yaml ...]
#   e.g. PRESET=qwen2_5_1_5b bash scripts/run_grpo_ehrsql.sh algo=dapo adapter=lora trainer.total_training_steps=200
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up
become recipes.run ehrsql "$@"
