#!/usr/bin/env bash
# ECG question answering end to end: set-up, data, model, SFT on written answers, GRPO with the ECG grader from the SFT
# policy, export, evaluation before and after, summary and comparison page. Run it again to go on where it stopped;
# finished stages are not repeated.
#   bash scripts/run_grpo_ecg.sh [options of recipes.run] [hydra overrides of configs/ecg_grpo.yaml ...]
#   e.g. ECG_DATA=~/ECG-Expert-QA bash scripts/run_grpo_ecg.sh trainer.total_training_steps=200 judge=served
set -euo pipefail
source "$(dirname "$0")/env.sh"
set_up
become recipes.run ecg "$@"
