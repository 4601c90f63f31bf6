# Sourced by the EHRSQL scripts: their settings, and the stages that lead from nothing to a start model for GRPO.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
source scripts/stages.sh

# Hydra takes each choice once, so preset= and hardware= among the arguments replace the variables; recipe.* settings
# are for all stages.
OVERRIDES=() RECIPE_OVERRIDES=()
for argument in "$@"; do
  case "$argument" in
    preset=*) PRESET=${argument#*=} ;;
    hardware=*) HARDWARE_CONFIG=${argument#*=} ;;
    recipe.*) RECIPE_OVERRIDES+=("$argument") ;;
    *) OVERRIDES+=("$argument") ;;
  esac
done

# --- adjust these, or set them in the environment or in .env ----------------------------------------------------------
export PRESET=${PRESET:-tiny}                   # a file of configs/preset
OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql_$PRESET} # everything the run writes
SEED=${SEED:-0}                                 # of the start weights (tiny), the share with gold SQL, and training
EHRSQL_DATA=${EHRSQL_DATA:-}                    # folder with {train,valid,test}/{data,label}.json; empty: demo questions
EHR_DB=${EHR_DB:-}                              # their SQLite database; empty: demo patients
HARDWARE_CONFIG=${HARDWARE_CONFIG:-}            # a file of configs/hardware for GRPO; empty: by what is there
# ----------------------------------------------------------------------------------------------------------------------

CHOICES=(preset="$PRESET" ${RECIPE_OVERRIDES[@]+"${RECIPE_OVERRIDES[@]}"})
SFT_CHOICES=(preset="$PRESET") # without what concerns GRPO alone: SFT is not repeated for it
for argument in ${RECIPE_OVERRIDES[@]+"${RECIPE_OVERRIDES[@]}"}; do
  case "$argument" in recipe.grpo.*) ;; *) SFT_CHOICES+=("$argument") ;; esac
done

ehrsql_start() { # CONFIG [overrides...]: set-up, check of the overrides and of the machine, lock
  bash scripts/setup.sh
  PATH=$(realpath "$VENV/bin"):$PATH
  local settings
  settings=$(python -m recipes.config "$@")
  eval "$settings" # RECIPE_*
  OUTPUT_DIR=$(realpath -m "$OUTPUT_DIR") # verl's workers run in folders of their own
  case "$OUTPUT_DIR" in
    *[!A-Za-z0-9._/+@-]*) die "OUTPUT_DIR=$OUTPUT_DIR: use letters, digits and ._/+@- only, which Hydra takes unquoted" ;;
  esac
  python -m recipes.doctor --output_dir "$OUTPUT_DIR"
  take_lock
  PARQUET=$OUTPUT_DIR/data/parquet
  MODELS=$OUTPUT_DIR/models
}

ehrsql_data() { # raw data -> database -> questions -> parquet, and the start model; sets DATABASE and START_MODEL
  local data=$OUTPUT_DIR/data questions=$EHRSQL_DATA
  DATABASE=$EHR_DB
  if [ -n "$EHRSQL_DATA" ]; then
    inputs "$EHR_DB" "$EHRSQL_DATA"/*/*.json
  else
    questions=$data/questions DATABASE=$data/mimic_iv.sqlite
    stage demo_ehr python -m data_prep.make_demo_ehr --out_dir "$data/mimic_iv_tree"
    stage database python -m data_prep.build_ehr_db --data_dir "$data/mimic_iv_tree" --out_dir "$data" --num_patient 100 \
      --timeshift --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1
    stage questions python -m data_prep.make_demo_questions --db "$DATABASE" --out_dir "$questions" --train 6000
  fi
  local prepare=(python -m data_prep.ehrsql --data_dir "$questions" --db "$DATABASE" --out_dir "$PARQUET" --seed "$SEED"
    --prompt "$RECIPE_PROMPT" --gold_sql_share "$RECIPE_GOLD_SQL_SHARE")
  START_MODEL=$RECIPE_MODEL
  case "$RECIPE_MODEL" in
    tiny | smollm2_135m) START_MODEL=$MODELS/$RECIPE_MODEL ;;
  esac
  if [ "$RECIPE_MODEL" = tiny ]; then # its tokenizer is trained on the data
    stage parquet "${prepare[@]}"
    stage model python -m recipes.models tiny --out_dir "$START_MODEL" --seed "$SEED" \
      --corpus "$PARQUET/sft_train.parquet" "$PARQUET/train.parquet"
  else
    stage model python -m recipes.models "$RECIPE_MODEL" --out_dir "$START_MODEL"
    stage parquet "${prepare[@]}" --tokenizer "$START_MODEL" --max_prompt_length "$RECIPE_MAX_PROMPT_LENGTH"
  fi
}

ehrsql_sft() { # [overrides of configs/ehrsql_sft.yaml...]: warm-up on the questions with gold SQL; START_MODEL follows
  training_stage sft "$OUTPUT_DIR/sft" python -m recipes.launch ehrsql_sft "${SFT_CHOICES[@]}" \
    data.train_files="$PARQUET/sft_train.parquet" \
    data.val_files="$PARQUET/sft_valid.parquet" \
    model.path="$START_MODEL" \
    trainer.seed="$SEED" \
    trainer.default_local_dir="$OUTPUT_DIR/sft" \
    "$@"
  stage export_sft python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/sft" --start_model "$START_MODEL" \
    --prompts "$PARQUET/valid.parquet" --out_dir "$MODELS/sft"
  START_MODEL=$MODELS/sft
}
