# Sourced by the continued_sft_*.sh benchmarks after the recipe has run: SFT continued for GRPO's time, and its export.

seconds() { head -n 1 "$OUTPUT_DIR/stages/$1" | cut -d' ' -f2; }

continue_sft() { # PROMPTS: from START_MODEL to models/continued_sft
  local sft_steps steps rows
  sft_steps=$(cat "$OUTPUT_DIR/sft/latest_checkpointed_iteration.txt")
  # A tenth more, since the trainer's start-up weighs more in the shorter run: SFT gets at least the time of GRPO.
  steps=$((sft_steps * $(seconds grpo) * 11 / $(seconds sft) / 10))
  rows=$(rows "$PARQUET/sft_train.parquet")
  training_stage continued_sft "$OUTPUT_DIR/continued_sft" python -m recipes.launch "${RECIPE}_sft" "${SFT_CHOICES[@]}" \
    data.train_files="$PARQUET/sft_train.parquet" data.val_files="$PARQUET/sft_valid.parquet" model.path="$START_MODEL" \
    trainer.seed="$SEED" trainer.default_local_dir="$OUTPUT_DIR/continued_sft" \
    trainer.total_training_steps="$steps" trainer.total_epochs=$((steps / (rows / RECIPE_SFT_BATCH_SIZE) + 1)) \
    trainer.save_freq="$steps" trainer.test_freq=-1
  stage export_continued_sft "$MODELS/continued_sft" python -m recipes.export \
    --checkpoint_dir "$OUTPUT_DIR/continued_sft" --start_model "$START_MODEL" --prompts "$1" \
    --out_dir "$MODELS/continued_sft"
}

report_times() {
  echo "GRPO took $(seconds grpo) s, SFT continued for $(seconds continued_sft) s"
}
