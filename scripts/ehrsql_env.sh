# Sourced by the EHRSQL scripts: environment, output folder and lock, data and start model.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
source scripts/stages.sh

# --- adjust these, or set them in the environment or in .env ----------------------------------------------------------
export OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql} # everything the run writes
PRESET=${PRESET:-tiny}                          # a file of configs/preset
SEED=${SEED:-0}                                 # of the start weights (tiny), of the share with gold SQL, of training
EHRSQL_DATA=${EHRSQL_DATA:-}                    # folder with {train,valid,test}/{data,label}.json; empty: demo questions
EHR_DB=${EHR_DB:-}                              # their SQLite database; empty: demo patients
# ----------------------------------------------------------------------------------------------------------------------

# Hydra takes each choice once, so preset= and hardware= among the arguments replace the variables.
ARGUMENTS=()
for argument in "$@"; do
  case "$argument" in
    preset=*) PRESET=${argument#*=} ;;
    hardware=*) HARDWARE_CONFIG=${argument#*=} ;;
    *) ARGUMENTS+=("$argument") ;;
  esac
done

bash scripts/setup.sh
PATH=$(realpath "$VENV/bin"):$PATH
mkdir -p "$OUTPUT_DIR" || die "cannot make $OUTPUT_DIR; choose another OUTPUT_DIR"
OUTPUT_DIR=$(realpath "$OUTPUT_DIR") # verl's workers run in folders of their own
take_lock

DATA_DIR=$OUTPUT_DIR/data
MODEL_DIR=$OUTPUT_DIR/models

ehrsql_data() { # raw data -> database -> questions -> parquet; needs the RECIPE_* settings of recipes.config
  if [ -n "$EHRSQL_DATA$EHR_DB" ]; then
    [ -n "$EHRSQL_DATA" ] && [ -n "$EHR_DB" ] || die "set both EHRSQL_DATA (questions) and EHR_DB (their database), or neither for the demo"
  else
    EHRSQL_DATA=$DATA_DIR/questions EHR_DB=$DATA_DIR/mimic_iv.sqlite
    stage demo_ehr python -m data_prep.make_demo_ehr --out_dir "$DATA_DIR/mimic_iv_tree"
    stage database python -m data_prep.build_ehr_db --data_dir "$DATA_DIR/mimic_iv_tree" --out_dir "$DATA_DIR" \
      --num_patient 100 --timeshift --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1
    stage questions python -m data_prep.make_demo_questions --db "$EHR_DB" --out_dir "$EHRSQL_DATA"
  fi
  stage parquet python -m data_prep.ehrsql --data_dir "$EHRSQL_DATA" --db "$EHR_DB" --out_dir "$DATA_DIR/parquet" \
    --prompt "$RECIPE_PROMPT" --gold_sql_share "$RECIPE_GOLD_SQL_SHARE" --seed "$SEED"
}

ehrsql_model() { # sets START_MODEL
  START_MODEL=$RECIPE_MODEL
  case "$RECIPE_MODEL" in
    tiny | smollm2_135m)
      START_MODEL=$MODEL_DIR/$RECIPE_MODEL
      stage model python -m recipes.models "$RECIPE_MODEL" --out_dir "$START_MODEL" --seed "$SEED" \
        --corpus "$DATA_DIR/parquet/sft_train.parquet" "$DATA_DIR/parquet/train.parquet" ;;
  esac
}
