# Sourced by baselines_*.sh after the recipe has run: what GRPO is compared with, from the same start and for about the
# same time. Continued SFT goes on with the pairs of SFT. Rejection-sampling fine-tuning takes the right ones of the start
# model's own answers to questions of GRPO.

seconds() { head -n 1 "$OUTPUT_DIR/stages/$1" | cut -d' ' -f2; }

fine_tune() { # NAME PAIRS SECONDS PROMPTS: SFT from START_MODEL on PAIRS for SECONDS; exports and evaluates models/NAME
  local name=$1 pairs=$2 sft_steps steps upstream=$UPSTREAM batches
  batches=$(($(rows "$pairs") / RECIPE_SFT_BATCH_SIZE))
  [ "$batches" -gt 0 ] || die "$pairs has fewer pairs than a batch ($RECIPE_SFT_BATCH_SIZE); nothing to train on"
  sft_steps=$(cat "$OUTPUT_DIR/sft/latest_checkpointed_iteration.txt")
  # A tenth more, since the trainer's start-up weighs more in a shorter run.
  steps=$((sft_steps * $3 * 11 / $(seconds sft) / 10))
  [ "$steps" -gt 0 ] || die "$name: sampling took as long as GRPO; no time is left to train"
  training_stage "$name" "$OUTPUT_DIR/$name" python -m recipes.launch "${RECIPE}_sft" "${SFT_CHOICES[@]}" \
    data.train_files="$pairs" data.val_files="$PARQUET/sft_valid.parquet" model.path="$START_MODEL" \
    trainer.seed="$SEED" trainer.default_local_dir="$OUTPUT_DIR/$name" \
    trainer.total_training_steps="$steps" trainer.total_epochs=$((steps / batches + 1)) \
    trainer.save_freq="$steps" trainer.test_freq=-1
  stage "export_$name" "$MODELS/$name" python -m recipes.export \
    --checkpoint_dir "$OUTPUT_DIR/$name" --start_model "$START_MODEL" --prompts "$4" --out_dir "$MODELS/$name"
  evaluate "$name" "$MODELS/$name"
  UPSTREAM=$upstream # the baselines do not depend on each other
}

baselines() { # TRAIN_FILE PROMPTS THRESHOLD: both of them; THRESHOLD is the acc from which an own answer is right
  local pairs=$OUTPUT_DIR/data/right_answers.parquet grpo_steps
  grpo_steps=$(cat "$OUTPUT_DIR/grpo/latest_checkpointed_iteration.txt")
  fine_tune continued_sft "$PARQUET/sft_train.parquet" "$(seconds grpo)" "$2"
  stage right_answers "$pairs" python -m benchmarks.rejection_sampling --recipe "$RECIPE" --model_name "$START_MODEL" \
    --dataset_path "$1" --questions $((grpo_steps * RECIPE_GRPO_BATCH_SIZE)) --samples "$RECIPE_GRPO_ROLLOUTS" \
    --max_response_length "$RECIPE_MAX_RESPONSE_LENGTH" --threshold "$3" --seed "$SEED" --out_file "$pairs"
  fine_tune rejection_sampling "$pairs" $(($(seconds grpo) - $(seconds right_answers))) "$2"
}

evaluate() { # LABEL MODEL: with the recipe's evaluation, EVALUATE
  stage "evaluate_$1" "$OUTPUT_DIR/results/$1" "${EVALUATE[@]}" --model_name "$2" --output_dir "$OUTPUT_DIR/results/$1"
}

compare_with() { # START_LABEL: the table of all four
  local results=$OUTPUT_DIR/results
  python -m recipes.summary --runs "$1=$results/$1" grpo="$results/grpo" continued_sft="$results/continued_sft" \
    rejection_sampling="$results/rejection_sampling" --metrics "$OUTPUT_DIR/grpo/metrics" --out_dir "$OUTPUT_DIR/baselines"
  echo "GRPO took $(seconds grpo) s, continued SFT $(seconds continued_sft) s, rejection sampling" \
    "$(seconds right_answers) s and its SFT $(seconds rejection_sampling) s"
}
