#!/usr/bin/env bash
# What GRPO is compared with in RESULTS.md: SFT continued on the same pairs with gold SQL for as long as GRPO took.
# Runs the demo recipe first where it has not run.
#   SEED=0 bash benchmarks/continued_sft_ehrsql.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export SEED=${SEED:-0} PRESET=tiny OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql_seed_${SEED:-0}}
bash scripts/run_grpo_ehrsql.sh

source scripts/ehrsql_env.sh
PARQUET=$DATA_DIR/parquet
seconds() { cut -d' ' -f2 "$OUTPUT_DIR/stages/$1"; }
sft_steps=$(cut -d_ -f3 <<< "$(basename "$(ls -d "$OUTPUT_DIR"/sft/global_step_* | tail -1)")")
# Both times hold their trainer's start-up; GRPO's is the longer one, so that the estimate favours SFT.
steps=$((sft_steps * $(seconds grpo) / $(seconds sft)))
rows=$(python -c "import pyarrow.parquet as pq; print(pq.read_metadata('$PARQUET/sft_train.parquet').num_rows)")

stage continued_sft python -m recipes.launch ehrsql_sft preset=tiny sft_hardware=cpu \
  data.train_files="$PARQUET/sft_train.parquet" data.val_files="$PARQUET/sft_valid.parquet" \
  model.path="$MODEL_DIR/sft" optim.lr=1e-3 trainer.seed="$SEED" trainer.default_local_dir="$OUTPUT_DIR/continued_sft" \
  trainer.total_training_steps="$steps" trainer.total_epochs=$((steps * 16 / rows + 1)) \
  trainer.save_freq="$steps" trainer.test_freq=-1
stage export_continued_sft python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/continued_sft" \
  --start_model "$MODEL_DIR/sft" --prompts "$PARQUET/valid.parquet" --out_dir "$MODEL_DIR/continued_sft"
stage evaluate_continued_sft python -m recipes.evaluate --dataset_path "$PARQUET/test.parquet" --max_response_length 160 \
  --model_name "$MODEL_DIR/continued_sft" --output_dir "$OUTPUT_DIR/results/continued_sft"
python -m recipes.summary --runs start="$OUTPUT_DIR/results/start" continued_sft="$OUTPUT_DIR/results/continued_sft" \
  grpo="$OUTPUT_DIR/results/grpo" --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/comparison"
echo "GRPO took $(seconds grpo) s, SFT continued for $(seconds continued_sft) s ($steps steps)"
