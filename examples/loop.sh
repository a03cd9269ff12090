#!/usr/bin/env bash
# The whole loop: traces of GSM8K's training problems, their steps labelled twice (CPMI, Monte Carlo), a PRM trained on
# each set of labels, both evaluated: first errors on ProcessBench gsm8k, best of 4 on GSM8K test solutions.
# Every stage keeps what it has finished: give the same command again and it goes on.
#
#   CPMI_EVAL_DATA_DIR=DIR examples/loop.sh [OUT]        # OUT: runs/loop if not given
#
# Run it where cpmi-eval[train] is installed. DIR is a local copy of the benchmarks, with
# candidates/gsm8k_test_openai_4.jsonl (or say CANDIDATES=FILE).
# PROBLEMS: training problems, two traces each. LIMIT: problems or traces of each evaluation; all if not set.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
OUT=${1:-runs/loop}
MODEL=${MODEL:-smollm2-135m}
PROBLEMS=${PROBLEMS:-48}
CANDIDATES=${CANDIDATES:-${CPMI_EVAL_DATA_DIR:?names the benchmarks}/candidates/gsm8k_test_openai_4.jsonl}
LIMIT=${LIMIT:+--limit $LIMIT}

step() {  # exit code 1 says that some rows failed; they are in the tables, and the others go on
    echo "+ cpmi-eval $*" >&2
    cpmi-eval "$@" || [ $? -eq 1 ]
}

python "$HERE/build_traces.py" "$OUT/traces.jsonl" --problems "$PROBLEMS"
step label --traces "$OUT/traces.jsonl" --labeler cpmi --model "$MODEL" --format scores --normalize zsig \
    --output_path "$OUT/label-cpmi" --to "$OUT/cpmi.jsonl"
step label --traces "$OUT/traces.jsonl" --labeler mc --labeler_args n=8,max_new_tokens=128 --model "$MODEL" \
    --format scores --output_path "$OUT/label-mc" --to "$OUT/mc.jsonl"
for labels in cpmi mc; do
    step train --labels "$OUT/$labels.jsonl" --format scores --model "$MODEL" --epochs 2 --to "$OUT/prm-$labels"
    step run --prm "$OUT/prm-$labels" --task processbench --subset gsm8k $LIMIT --output_path "$OUT/processbench-$labels"
    step run --prm "$OUT/prm-$labels" --task gsm8k --candidates "$CANDIDATES" $LIMIT --output_path "$OUT/best-of-4-$labels"
done
cpmi-eval leaderboard show "$OUT"/label-cpmi "$OUT"/label-mc --sort step_auc
cpmi-eval leaderboard show "$OUT"/processbench-cpmi "$OUT"/processbench-mc --sort step_auc --published
cpmi-eval leaderboard show "$OUT"/best-of-4-cpmi "$OUT"/best-of-4-mc
