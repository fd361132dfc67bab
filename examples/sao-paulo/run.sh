#!/bin/sh
# From the project's folder, in its environment: sh examples/sao-paulo/run.sh [options of octavo run]
set -e
python examples/sao-paulo/sums.py runs/data/sao-paulo
octavo run examples/sao-paulo/losses.yaml \
    --sweep tuned.policy.kind=dapo,dr_grpo,grpo --seeds 3 \
    --out runs/sao-paulo "$@"
