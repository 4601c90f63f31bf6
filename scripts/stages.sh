# Sourced by the run scripts: stages that are not repeated once finished, and one run at a time in an output folder.
#
#   inputs FILE...          what follows depends on these files' sizes and times too.
#   contents FILE...        the same for what files of the repository hold.
#   stage NAME command...   runs the command and leaves in $OUTPUT_DIR/stages/NAME a key, made of the command and of the
#                           stages before it, and the seconds it took. A stage whose key is there already is skipped.
#   training_stage NAME CHECKPOINTS command...
#                           the same for a training run, which verl resumes from CHECKPOINTS; refuses to resume one that
#                           started from other data, another model or other settings than how long to train.

UPSTREAM="" # key of what came before

take_lock() { # held until this script and the programs it started have ended
  mkdir -p "$OUTPUT_DIR/stages" && exec 9>"$OUTPUT_DIR/.lock" || die "cannot write to $OUTPUT_DIR; choose another OUTPUT_DIR"
  flock --nonblock 9 || die "another run is using $OUTPUT_DIR; wait for it, or choose another OUTPUT_DIR"
}

key_of() { printf '%s\n' "$UPSTREAM" "$@" | sha256sum | cut -c1-16; }

inputs() { UPSTREAM=$(key_of "$(stat -c '%n %s %Y' -- "$@" 2>&1)"); }

contents() { UPSTREAM=$(key_of "$(sha256sum -- "$@")"); }

# Refuses data for a folder that holds another run's, before anything of it is written over.
same_data() { # settings...
  local origin=$OUTPUT_DIR/stages/data.origin key
  key=$(key_of "$@")
  if [ -f "$origin" ] && [ "$(cat "$origin")" != "$key" ]; then
    die "$OUTPUT_DIR holds a run on other data, or with another seed or other settings of the data; choose another OUTPUT_DIR"
  fi
  echo "$key" > "$origin"
}

stage() {
  local name=$1 stamp=$OUTPUT_DIR/stages/$1 key start=$SECONDS
  shift
  key=$(key_of "$@")
  if [ -f "$stamp" ] && [ "$(cut -d' ' -f1 "$stamp")" = "$key" ]; then
    echo "== $name: finished before, skipped"
  else
    echo "== $name: $*"
    rm -f "$stamp"
    "$@" || die "stage $name failed (see above); the same command goes on from here"
    echo "$key $((SECONDS - start))" > "$stamp"
    echo "== $name: done in $((SECONDS - start)) s"
  fi
  UPSTREAM=$key
}

training_stage() {
  local name=$1 checkpoints=$2 origin=$OUTPUT_DIR/stages/$1.origin argument lasting=() key
  shift 2
  for argument in "$@"; do
    case "$argument" in
      trainer.total_* | trainer.save_freq=* | trainer.test_freq=* | trainer.val_* | trainer.logger=*) ;;
      recipe.*.steps=* | recipe.*.epochs=* | recipe.*.save_freq=* | recipe.*.test_freq=*) ;;
      *) lasting+=("$argument") ;;
    esac
  done
  key=$(key_of "${lasting[@]}")
  if [ -e "$checkpoints/latest_checkpointed_iteration.txt" ] && [ "$(cat "$origin" 2>/dev/null)" != "$key" ]; then
    die "$checkpoints holds a run on other data, from another model or with other settings; move it away, or choose another OUTPUT_DIR"
  fi
  echo "$key" > "$origin"
  stage "$name" "$@"
}
