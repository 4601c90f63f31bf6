# Sourced by ehrsql.sh and ecg.sh: their arguments, and the stages around verl. They say what RECIPE is (the beginning of
# the names of its configs), and add the settings and the data that are theirs.
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

choose() { # PRESET: the Hydra choices of all stages (CHOICES) and of SFT (SFT_CHOICES)
  CHOICES=(preset="$1" ${RECIPE_OVERRIDES[@]+"${RECIPE_OVERRIDES[@]}"})
  SFT_CHOICES=(preset="$1") # without what concerns GRPO alone: SFT is not repeated for it
  local argument
  for argument in ${RECIPE_OVERRIDES[@]+"${RECIPE_OVERRIDES[@]}"}; do
    case "$argument" in recipe.grpo.* | recipe.judge_*) ;; *) SFT_CHOICES+=("$argument") ;; esac
  done
  GRPO=("${RECIPE}_grpo" "${CHOICES[@]}" ${HARDWARE_CONFIG:+hardware="$HARDWARE_CONFIG"})
}

recipe_start() { # CONFIG [overrides...]: set-up, check of the settings and of the machine, lock
  [[ "$SEED" =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "SEED=$SEED: give a whole number of at most nine digits"
  [[ "${NUM_SAMPLES:-}" =~ ^([1-9][0-9]{0,8})?$ ]] \
    || die "NUM_SAMPLES=$NUM_SAMPLES: give a number of test questions, or nothing for all"
  bash scripts/setup.sh
  PATH=$(realpath "$VENV/bin"):$PATH
  local settings
  settings=$(python -m recipes.config "$@")
  eval "$settings" # RECIPE_*
  OUTPUT_DIR=$(realpath -m "$OUTPUT_DIR") # verl's workers run in folders of their own
  case "$OUTPUT_DIR" in
    *[!A-Za-z0-9._/+@-]*) die "OUTPUT_DIR=$OUTPUT_DIR: use letters, digits and ._/+@- only, which Hydra takes unquoted" ;;
  esac
  python -m recipes.doctor --recipe "$RECIPE" --output_dir "$OUTPUT_DIR"
  take_lock
  PARQUET=$OUTPUT_DIR/data/parquet
  MODELS=$OUTPUT_DIR/models
}

data_and_model() { # TRAIN_FILE COMMAND...: data preparation and the start model; sets START_MODEL
  local train=$1
  shift
  START_MODEL=$RECIPE_MODEL
  case "$RECIPE_MODEL" in
    tiny | smollm2_135m) START_MODEL=$MODELS/$RECIPE_MODEL ;;
  esac
  if [ "$RECIPE_MODEL" = tiny ]; then # its tokenizer is trained on the data
    stage parquet "$PARQUET" "$@"
    stage model "$START_MODEL" python -m recipes.models tiny --out_dir "$START_MODEL" --seed "$SEED" \
      --recipe "$RECIPE" --corpus "$PARQUET/sft_train.parquet" "$train"
  else
    stage model "$START_MODEL" python -m recipes.models "$RECIPE_MODEL" --out_dir "$START_MODEL"
    stage parquet "$PARQUET" "$@" --tokenizer "$START_MODEL" --max_prompt_length "$RECIPE_MAX_PROMPT_LENGTH"
  fi
}

yes_or_no() { # KEY VALUE: of a setting, as Python prints it
  case "$2" in True | False) ;; *) die "$1=$2: use true or false" ;; esac
}

rows() { # PARQUET_FILE: how many it has
  python -c "import sys; from pyarrow.parquet import read_metadata; print(read_metadata(sys.argv[1]).num_rows)" "$1"
}

check_test_set() { # FILE: before the training whose result it is to measure
  local questions
  [ -f "$1" ] || die "no $1: the data have no questions for the test; give more of them"
  questions=$(rows "$1")
  [ "${NUM_SAMPLES:-1}" -le "$questions" ] \
    || die "NUM_SAMPLES=$NUM_SAMPLES, but $1 has $questions questions; lower it, or leave it out for all"
}

train_sft() { # PROMPTS [overrides of configs/*_sft.yaml...]: SFT and its export; START_MODEL follows
  local prompts=$1
  shift
  training_stage sft "$OUTPUT_DIR/sft" python -m recipes.launch "${RECIPE}_sft" "${SFT_CHOICES[@]}" \
    data.train_files="$PARQUET/sft_train.parquet" \
    data.val_files="$PARQUET/sft_valid.parquet" \
    model.path="$START_MODEL" \
    trainer.seed="$SEED" \
    trainer.default_local_dir="$OUTPUT_DIR/sft" \
    "$@"
  stage export_sft "$MODELS/sft" python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/sft" \
    --start_model "$START_MODEL" --prompts "$prompts" --out_dir "$MODELS/sft"
  START_MODEL=$MODELS/sft
}

train_grpo() { # TRAIN_FILE VALID_FILE [overrides...]: GRPO from START_MODEL, and its export
  local train=$1 valid=$2
  shift 2
  training_stage grpo "$OUTPUT_DIR/grpo" python -m recipes.launch "${GRPO[@]}" \
    data.train_files="$train" \
    data.val_files="$valid" \
    data.seed="$SEED" \
    actor_rollout_ref.model.path="$START_MODEL" \
    trainer.default_local_dir="$OUTPUT_DIR/grpo" \
    "$@"
  stage export_grpo "$MODELS/grpo" python -m recipes.export --checkpoint_dir "$OUTPUT_DIR/grpo" \
    --start_model "$START_MODEL" --prompts "$valid" --out_dir "$MODELS/grpo"
}
