#!/usr/bin/env bash
# Supervised fine-tuning on ECG-Expert-QA's written answers with LoRA, from nothing to a model.
#   bash scripts/run_sft_ecg.sh [options of recipes.run] [hydra overrides of configs/ecg_sft.yaml ...]
#   e.g. bash scripts/run_sft_ecg.sh --model_name meta-llama/Llama-3.2-3B-Instruct --num_epochs 1 --batch_size 4 \
#     --gradient_accumulation_steps 4 --learning_rate 2e-4 --max_seq_length 2048 --lora_r 16 --lora_alpha 32
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up
become recipes.run ecg --sft_only "$@"
