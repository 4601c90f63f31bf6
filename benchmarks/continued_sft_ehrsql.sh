#!/usr/bin/env bash
# What GRPO is compared with in RESULTS.md: SFT continued on the same pairs with gold SQL for as long as GRPO took.
# Runs the demo recipe first where it has not run.
#   SEED=0 bash benchmarks/continued_sft_ehrsql.sh [the overrides that the recipe ran with ...]
set -euo pipefail
cd "$(dirname "$0")/.."
export SEED=${SEED:-0} OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql_seed_${SEED:-0}}
bash scripts/run_grpo_ehrsql.sh "$@"

source scripts/ehrsql.sh
ehrsql_start ehrsql_sft "${CHOICES[@]}"
ehrsql_data
ehrsql_sft # finished before: sets START_MODEL and what the stages below depend on

seconds() { cut -d' ' -f2 "$OUTPUT_DIR/stages/$1"; }
sft_steps=$(cat "$OUTPUT_DIR/sft/latest_checkpointed_iteration.txt")
# A tenth more, since the trainer's start-up weighs more in the shorter run: SFT gets at least the time of GRPO.
steps=$((sft_steps * $(seconds grpo) * 11 / $(seconds sft) / 10))
rows=$(python -c "import pyarrow.parquet as pq; print(pq.read_metadata('$PARQUET/sft_train.parquet').num_rows)")

training_stage continued_sft "$OUTPUT_DIR/continued_sft" python -m recipes.launch ehrsql_sft "${SFT_CHOICES[@]}" \
  data.train_files="$PARQUET/sft_train.parquet" data.val_files="$PARQUET/sft_valid.parquet" model.path="$START_MODEL" \
  trainer.seed="$SEED" trainer.default_local_dir="$OUTPUT_DIR/continued_sft" \
  trainer.total_training_steps="$steps" trainer.total_epochs=$((steps * RECIPE_SFT_BATCH_SIZE / rows + 1)) \
  trainer.save_freq="$steps" trainer.test_freq=-1
stage export_continued_sft python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/continued_sft" \
  --start_model "$START_MODEL" --prompts "$PARQUET/valid.parquet" --out_dir "$MODELS/continued_sft"
stage evaluate_continued_sft python -m recipes.evaluate --dataset_path "$PARQUET/test.parquet" --db_path "$DATABASE" \
  --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" --model_name "$MODELS/continued_sft" \
  --output_dir "$OUTPUT_DIR/results/continued_sft"
python -m recipes.summary --runs start="$OUTPUT_DIR/results/start" continued_sft="$OUTPUT_DIR/results/continued_sft" \
  grpo="$OUTPUT_DIR/results/grpo" --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/comparison"
echo "GRPO took $(seconds grpo) s, SFT continued for $(seconds continued_sft) s ($steps steps)"
