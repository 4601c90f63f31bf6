# Sourced by the EHRSQL scripts: their settings, and the way from nothing to parquet files and a start model.
RECIPE=ehrsql
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

# --- adjust these, or set them in the environment or in .env ----------------------------------------------------------
export PRESET=${PRESET:-tiny}                   # a file of configs/preset
OUTPUT_DIR=${OUTPUT_DIR:-outputs/ehrsql_$PRESET} # everything the run writes
SEED=${SEED:-0}                                 # of the start weights (tiny), training, and the share with gold SQL
EHRSQL_DATA=${EHRSQL_DATA:-}                    # folder with {train,valid,test}/{data,label}.json; empty: demo questions
EHR_DB=${EHR_DB:-}                              # their SQLite database; empty: demo patients
EHRSQL_TEACHER=${EHRSQL_TEACHER:-}              # label.json of unverified queries for SFT; empty: by the preset
HARDWARE_CONFIG=${HARDWARE_CONFIG:-}            # a file of configs/hardware for GRPO; empty: by what is there
# ----------------------------------------------------------------------------------------------------------------------

choose "$PRESET"

ehrsql_data() { # raw data -> database -> questions -> parquet, and the start model; sets DATABASE and START_MODEL
  local data=$OUTPUT_DIR/data questions=$EHRSQL_DATA teacher=$EHRSQL_TEACHER imitated=()
  yes_or_no recipe.teacher.demo "$RECIPE_TEACHER_DEMO"
  yes_or_no recipe.teacher.executing_only "$RECIPE_TEACHER_EXECUTING_ONLY"
  [ -n "$teacher$EHRSQL_DATA" ] || [ "$RECIPE_TEACHER_DEMO" != True ] || teacher=$data/questions/train/teacher.json
  if [ -n "$teacher" ]; then # what SFT imitates
    imitated=(--teacher_labels "$teacher")
    case "$RECIPE_TEACHER_EXECUTING_ONLY" in True) imitated+=(--executing_only) ;; esac
  else
    imitated=(--gold_sql_share "$RECIPE_GOLD_SQL_SHARE")
  fi
  DATABASE=$EHR_DB
  same_data "$EHRSQL_DATA" "$EHR_DB" "$SEED" "$RECIPE_PROMPT" "${imitated[@]:1}"
  [ -z "$EHRSQL_TEACHER" ] || inputs "$EHRSQL_TEACHER"
  if [ -n "$EHRSQL_DATA" ]; then
    inputs "$EHR_DB" "$EHRSQL_DATA"/*/*.json
  else
    questions=$data/questions DATABASE=$data/mimic_iv.sqlite
    stage demo_ehr "$data/mimic_iv_tree" python -m data_prep.make_demo_ehr --out_dir "$data/mimic_iv_tree"
    stage database "$DATABASE" python -m data_prep.build_ehr_db --data_dir "$data/mimic_iv_tree" --out_dir "$data" \
      --num_patient 100 --timeshift --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 \
      --cur_patient_ratio 0.1
    stage questions "$questions" python -m data_prep.make_demo_questions --db "$DATABASE" --out_dir "$questions" \
      --train 6000
  fi
  data_and_model "$PARQUET/train.parquet" python -m data_prep.ehrsql --data_dir "$questions" --db "$DATABASE" \
    --out_dir "$PARQUET" --seed "$SEED" --prompt "$RECIPE_PROMPT" "${imitated[@]}"
}
