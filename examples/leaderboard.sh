#!/usr/bin/env bash
# The measured rows of leaderboards/processbench.jsonl: SmolLM2-135M's labelers, the PRMs of examples/loop.sh and the
# baselines on ProcessBench. Give the same command again and it goes on where it stopped.
#
#   CPMI_EVAL_DATA_DIR=DIR examples/leaderboard.sh [OUT [PRMS]]
#
# OUT (runs/leaderboard) gets the run directories and OUT/leaderboards the rows. PRMS: the folder that examples/loop.sh
# wrote, for its prm-cpmi and prm-mc; without it they are left out.
# What takes hours on a CPU runs on a sample: MC_LIMIT traces of gsm8k, MATH_LIMIT of math, MC_MATH_LIMIT of math for mc.
# On these samples every other scorer is given a row too, from the scores that it already has.
set -euo pipefail
OUT=${1:-runs/leaderboard}
PRMS=${2:-}
MC_LIMIT=${MC_LIMIT:-100}
MATH_LIMIT=${MATH_LIMIT:-300}
MC_MATH_LIMIT=${MC_MATH_LIMIT:-40}

run() {  # exit code 1 says that some rows failed; they are in the tables
    local name=$1
    shift
    echo "+ $name" >&2
    cpmi-eval run --task processbench --output_path "$OUT/$name" "$@" >&2 || [ $? -eq 1 ]
}

add() {
    cpmi-eval leaderboard add --to "$OUT/leaderboards" "$@"
}

rescored() {  # rescored NAME OPTIONS...: a run's scores under another threshold or on fewer traces, as a row
    local from=$1 to=$2
    shift 2
    cpmi-eval rescore "$OUT/$from" --output_path "$OUT/$to" "$@" >/dev/null || [ $? -eq 1 ]
    add "$OUT/$to"
}

for subset in gsm8k math; do
    sample=()
    [ $subset = gsm8k ] || sample=(--limit "$MATH_LIMIT")
    for name in random constant length; do
        run $subset-$name --labeler $name --subset $subset
    done
    for labels in cpmi mc; do
        [ -z "$PRMS" ] || run $subset-prm-$labels --prm "$PRMS/prm-$labels" --subset $subset
    done
    run $subset-cpmi --labeler cpmi --subset $subset "${sample[@]}"
    run $subset-cpmi-prefix --labeler cpmi --labeler_args variant=prefix --subset $subset "${sample[@]}"
    run $subset-judge-logit --labeler judge --labeler_args mode=logit --subset $subset "${sample[@]}"
done
run gsm8k-mc --labeler mc --labeler_args max_new_tokens=256 --subset gsm8k --limit "$MC_LIMIT"
run math-mc --labeler mc --labeler_args max_new_tokens=256 --subset math --limit "$MC_MATH_LIMIT"

for path in "$OUT"/gsm8k-* "$OUT"/math-*; do
    name=$(basename "$path")
    subset=${name%%-*}
    case $name in *-crossfit | *-on-*) continue ;; esac  # of an earlier call
    add "$path"
    rescored "$name" "$name-crossfit" --threshold crossfit:5
    case $name in  # runs on all of math, on the sample of those that are too slow for it
        math-random | math-constant | math-length | math-prm-*)
            rescored "$name" "$name-on-$MATH_LIMIT" --only "$OUT/math-cpmi"
            ;;
    esac
    [ "$name" = "$subset-mc" ] || rescored "$name" "$name-on-mc" --only "$OUT/$subset-mc"
done
cpmi-eval leaderboard show processbench --boards "$OUT/leaderboards" --sort step_auc --no-published
