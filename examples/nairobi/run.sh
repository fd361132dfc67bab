#!/bin/sh
# From the project's folder, in its environment: sh examples/nairobi/run.sh [options of octavo adapt]
set -e
python examples/nairobi/questions.py runs/data/nairobi
octavo adapt smollm2-135m runs/data/nairobi/train.jsonl \
    --held-out runs/data/nairobi/held-out.jsonl \
    --verifier examples/nairobi/dose.py:score \
    --method sft --lora --minutes 30 --system "Dozi / dose" \
    --out runs/nairobi "$@"
