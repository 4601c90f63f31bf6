#!/usr/bin/env bash
# Supervised fine-tuning on ECG-Expert-QA's written answers with LoRA, from nothing to a model.
#   bash scripts/run_sft_ecg.sh [options] [hydra overrides of configs/ecg_sft.yaml ...]
#
#   --model_name M                   tiny, smollm2_135m, a hub id or a folder; default: the preset's
#   --num_epochs N                   passes over the answers
#   --batch_size B --gradient_accumulation_steps A
#                                    B x A dialogues make one update; verl cuts them into micro-batches by their tokens
#   --learning_rate R
#   --max_seq_length L               in tokens, of prompt and answer together
#   --lora_r R --lora_alpha A        rank and scale of the adapter
#   e.g. bash scripts/run_sft_ecg.sh --model_name meta-llama/Llama-3.2-3B-Instruct --num_epochs 1 --batch_size 4 \
#     --gradient_accumulation_steps 4 --learning_rate 2e-4 --max_seq_length 2048 --lora_r 16 --lora_alpha 32
# Options that are not given are the preset's: PRESET and configs/preset/ecg.
set -euo pipefail

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; }
fail() { echo "run_sft_ecg.sh: $*; see bash scripts/run_sft_ecg.sh --help" >&2; exit 2; }

model_name() { # a folder, seen from here, by its full path; all else as it is
  case "$1" in tiny | smollm2_135m) echo "$1"; return ;; esac
  if [ -d "$1" ]; then realpath -s -- "$1"; else echo "$1"; fi
}

MODEL="" BATCH_SIZE="" ACCUMULATION=1 ARGUMENTS=()
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --model_name | --num_epochs | --batch_size | --gradient_accumulation_steps | --learning_rate | --max_seq_length | \
      --lora_r | --lora_alpha)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$1" in
        --model_name) ;;
        --learning_rate) [[ "$2" =~ ^[0-9.]+([eE]-?[0-9]+)?$ ]] || fail "$1 takes a number above 0, not $2" ;;
        *) [[ "$2" =~ ^[1-9][0-9]*$ ]] || fail "$1 takes a whole number above 0, not $2" ;;
      esac
      case "$1" in
        --model_name) MODEL=$(model_name "$2"); ARGUMENTS+=("recipe.model='$MODEL'") ;;
        --num_epochs) ARGUMENTS+=("recipe.sft.epochs=$2") ;;
        --batch_size) BATCH_SIZE=$2 ;;
        --gradient_accumulation_steps) ACCUMULATION=$2 ;;
        --learning_rate) ARGUMENTS+=("recipe.sft.learning_rate=$2") ;;
        --max_seq_length) ARGUMENTS+=("recipe.max_length=$2") ;;
        --lora_r) ARGUMENTS+=("model.lora_rank=$2"); export ADAPTER=lora ;;
        --lora_alpha) ARGUMENTS+=("model.lora_alpha=$2"); export ADAPTER=lora ;;
      esac
      shift 2
      ;;
    --*) fail "unknown option $1" ;;
    hardware=*) fail "$1 is for GRPO; use sft_hardware=cpu or sft_hardware=gpu" ;;
    *) ARGUMENTS+=("$1"); shift ;;
  esac
done
[ "$ACCUMULATION" = 1 ] || [ -n "$BATCH_SIZE" ] || fail "--gradient_accumulation_steps multiplies --batch_size; give that too"
[ -z "$BATCH_SIZE" ] || ARGUMENTS+=("recipe.sft.batch_size=$((BATCH_SIZE * ACCUMULATION))")
set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
if [ -n "$MODEL" ] && [ -z "${PRESET:-}" ]; then # the preset that is made for the model
  for file in "$(dirname "$0")"/../configs/preset/ecg/*.yaml; do
    name=$(basename "$file" .yaml)
    if grep -qxF "  model: $MODEL" "$(dirname "$0")/../configs/preset/$name.yaml"; then export PRESET=$name; fi
  done
fi

source "$(dirname "$0")/ecg.sh"

recipe_start ecg_sft "${SFT_CHOICES[@]}" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
ecg_data
train_sft "$PARQUET/grpo_valid.parquet" ${OVERRIDES[@]+"${OVERRIDES[@]}"}
echo "model: $START_MODEL"
