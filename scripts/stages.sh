# Sourced by the run scripts: stages that are not repeated once finished, and one run at a time in an output folder.
#
#   stage NAME command...   runs the command and leaves in $OUTPUT_DIR/stages/NAME a key, made of the command and of the
#                           stages before it, and the seconds it took. A stage whose key is there already is skipped.
#   training_stage NAME CHECKPOINTS command...
#                           the same for a training run, which verl resumes from CHECKPOINTS; refuses to resume one that
#                           started from other data or another model.

UPSTREAM="" # key of the stage before

take_lock() { # held until this script ends; the scripts it starts are covered, and what stages leave behind does not hold it
  [ "${LOCKED_OUTPUT_DIR:-}" = "$OUTPUT_DIR" ] && return
  mkdir -p "$OUTPUT_DIR/stages" && exec 9>"$OUTPUT_DIR/.lock" || die "cannot write to $OUTPUT_DIR; choose another OUTPUT_DIR"
  flock --nonblock 9 || die "another run is using $OUTPUT_DIR; wait for it, or choose another OUTPUT_DIR"
  export LOCKED_OUTPUT_DIR=$OUTPUT_DIR
}

stage_key() { cut -d' ' -f1 "$OUTPUT_DIR/stages/$1" 2>/dev/null || true; }

stage() {
  local name=$1 stamp=$OUTPUT_DIR/stages/$1 key start=$SECONDS
  shift
  key=$(printf '%s\n' "$UPSTREAM" "$@" | sha256sum | cut -c1-16)
  if [ "$(stage_key "$name")" = "$key" ]; then
    echo "== $name: finished before, skipped"
  else
    echo "== $name"
    rm -f "$stamp"
    "$@" 9>&- || die "stage $name failed (see above); the same command goes on from here"
    echo "$key $((SECONDS - start))" > "$stamp"
    echo "== $name: done in $((SECONDS - start)) s"
  fi
  UPSTREAM=$key
}

training_stage() {
  local name=$1 checkpoints=$2 origin=$OUTPUT_DIR/stages/$1.upstream
  shift 2
  if [ -e "$checkpoints/latest_checkpointed_iteration.txt" ] && [ "$(cat "$origin" 2>/dev/null)" != "$UPSTREAM" ]; then
    die "$checkpoints holds a run on other data or from another model; move it away, or choose another OUTPUT_DIR"
  fi
  echo "$UPSTREAM" > "$origin"
  stage "$name" "$@"
}
