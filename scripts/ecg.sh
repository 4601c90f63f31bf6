# Sourced by the ECG scripts: their settings, and the way from nothing to parquet files and a start model.
RECIPE=ecg
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

# --- adjust these, or set them in the environment or in .env ----------------------------------------------------------
PRESET=${PRESET:-$([ "$HARDWARE" = gpu ] && echo llama3_2_3b || echo tiny)} # a file of configs/preset/ecg
export PRESET=${PRESET#ecg/}
OUTPUT_DIR=${OUTPUT_DIR:-outputs/ecg_$PRESET}   # everything the run writes
SEED=${SEED:-0}                                 # of the start weights (tiny), the split, and training
ECG_DATA=${ECG_DATA:-}                          # checkout of ECG-Expert-QA; empty: demo questions
ECG_TEACHER=${ECG_TEACHER:-}                    # JSON file of unverified answers for SFT; empty: by the preset
ADAPTER=${ADAPTER:-$([ "$PRESET" = tiny ] && echo full || echo lora)} # lora or full, of SFT and GRPO alike
THINK=${THINK:-}                                # 1: reasoning in <think>, then <answer>, which alone is graded
HARDWARE_CONFIG=${HARDWARE_CONFIG:-}            # a file of configs/hardware for GRPO; empty: by what is there
# ----------------------------------------------------------------------------------------------------------------------

case "$THINK" in
  "" | 1) ;;
  0) THINK="" ;;
  *) die "THINK=$THINK: use 1, or nothing" ;;
esac
for position in "${!OVERRIDES[@]}"; do # adapter= is for SFT and GRPO alike
  case "${OVERRIDES[position]}" in
    adapter=*) ADAPTER=${OVERRIDES[position]#*=}; unset "OVERRIDES[position]" ;;
  esac
done

choose "ecg/$PRESET"
SFT_CHOICES+=(sft_adapter="$ADAPTER")
GRPO+=(adapter="$ADAPTER")

ecg_data() { # raw data -> parquet, and the start model; sets START_MODEL
  local raw=$ECG_DATA teacher=$ECG_TEACHER shares=()
  yes_or_no recipe.teacher.demo "$RECIPE_TEACHER_DEMO"
  [ -n "$teacher$ECG_DATA" ] || [ "$RECIPE_TEACHER_DEMO" != True ] || teacher=$OUTPUT_DIR/data/demo/teacher/answers.json
  same_data "$ECG_DATA" "$SEED" "$THINK" "$RECIPE_SFT_SHARE" ${teacher:+"$teacher"}
  contents reward_fns/ecg_ontology.yaml configs/ecg_prompts/system.jinja configs/ecg_prompts/user.jinja
  [ -z "$ECG_TEACHER" ] || inputs "$ECG_TEACHER"
  if [ -n "$raw" ]; then
    inputs "$raw"/*.json
  else
    raw=$OUTPUT_DIR/data/demo
    stage demo_ecg "$raw" python -m data_prep.make_demo_ecg --out_dir "$raw"
    shares=(--valid_share 0.06 --test_share 0.2) # 1,000 test questions: 5 points are more than noise
  fi
  data_and_model "$PARQUET/grpo_train.parquet" python -m data_prep.ecg_expert_qa --data_dir "$raw" --out_dir "$PARQUET" \
    --seed "$SEED" --sft_share "$RECIPE_SFT_SHARE" ${shares[@]+"${shares[@]}"} ${teacher:+--teacher_answers "$teacher"} ${THINK:+--think}
}
