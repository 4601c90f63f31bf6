# Sourced by the run scripts: stages that are not repeated once finished, and one run at a time in an output folder.
#
#   inputs FILE...          what follows depends on these files' sizes and times too.
#   contents FILE...        the same for what files of the repository hold.
#   stage NAME OUTPUT command...
#                           runs the command, which writes the file or folder OUTPUT, and leaves in
#                           $OUTPUT_DIR/stages/NAME a key, made of the command and of the stages before it, the seconds
#                           it took, and the files of OUTPUT. A stage whose key is there already is skipped, unless one
#                           of the files is gone.
#   training_stage NAME CHECKPOINTS command...
#                           the same for a training run, which verl resumes from CHECKPOINTS; refuses to resume one that
#                           started from other data, another model or other settings than how long to train. The seconds
#                           are those of all starts since it began. What follows depends on this very run: one begun
#                           anew has other weights, where data made anew are the same.

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

finished() { # STAMP KEY: whether the stage ran with this key, and what it made is still there
  local key seconds file
  [ -f "$1" ] || return 1
  {
    read -r key seconds
    [ "$key" = "$2" ] || return 1
    while IFS= read -r file; do [ -e "$file" ] || return 1; done
  } < "$1"
}

failed() { # NAME: verl, torch and Ray tell of a full disk in many ways and many lines
  local free
  free=$(df --output=avail -k "$OUTPUT_DIR" | tail -n 1)
  [ "$free" -ge 65536 ] || die "stage $1 failed: the disk of $OUTPUT_DIR is full; free space, then the same command goes on from here"
  die "stage $1 failed (see above); the same command goes on from here"
}

stage() {
  local name=$1 output=$2 stamp=$OUTPUT_DIR/stages/$1 key start=$SECONDS
  shift 2
  key=$(key_of "$@")
  if finished "$stamp" "$key"; then
    echo "== $name: finished before, skipped"
  else
    echo "== $name: $*"
    rm -f "$stamp"
    "$@" || failed "$name"
    {
      echo "$key $((SECONDS - start + ${EARLIER_SECONDS:-0}))"
      [ ! -e "$output" ] || find -H "$output" -type f
    } > "$stamp"
    echo "== $name: done in $((SECONDS - start)) s"
  fi
  UPSTREAM=$key
}

# Keeps in FILE the seconds since now and those before, until this script has ended, however it ends.
keep_time() { # FILE SECONDS
  local start=$SECONDS
  while kill -0 $$; do
    echo $((SECONDS - start + $2)) > "$1"
    sleep 1
  done
}

training_stage() {
  local name=$1 checkpoints=$2 origin=$OUTPUT_DIR/stages/$1.origin clock=$OUTPUT_DIR/stages/$1.seconds
  local begun=$OUTPUT_DIR/stages/$1.begun marker=$2/latest_checkpointed_iteration.txt
  local argument lasting=() key earlier=0 timer
  shift 2
  for argument in "$@"; do
    case "$argument" in
      trainer.total_* | trainer.save_freq=* | trainer.test_freq=* | trainer.val_* | trainer.logger=*) ;;
      recipe.*.steps=* | recipe.*.epochs=* | recipe.*.save_freq=* | recipe.*.test_freq=*) ;;
      *) lasting+=("$argument") ;;
    esac
  done
  key=$(key_of "${lasting[@]}")
  if [ -e "$marker" ]; then
    [ "$(cat "$origin" 2>/dev/null)" = "$key" ] \
      || die "$checkpoints holds a run on other data, from another model or with other settings; move it away, or choose another OUTPUT_DIR"
    earlier=$(cat "$clock" 2>/dev/null || true)
  else
    date +%s%N > "$begun"
  fi
  echo "$key" > "$origin"
  keep_time "$clock" "${earlier:-0}" >/dev/null 2>&1 9>&- &
  timer=$!
  EARLIER_SECONDS=${earlier:-0} stage "$name" "$marker" "$@"
  kill "$timer" && wait "$timer" 2>/dev/null || true # waited for, so that bash says nothing about its end
  [ ! -e "$begun" ] || UPSTREAM=$(key_of "$(cat "$begun")") # older runs lack it
}
