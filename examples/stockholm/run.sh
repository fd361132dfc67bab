#!/bin/sh
# From the project's folder, in its environment: sh examples/stockholm/run.sh [options of octavo adapt]
set -e
python examples/stockholm/invoices.py runs/data/stockholm
octavo adapt smollm2-135m runs/data/stockholm/train.jsonl \
    --held-out runs/data/stockholm/held-out.jsonl \
    --verifier "{kind: json_schema, path: examples/stockholm/schema.json, compare: fields}" \
    --method sft --lora --minutes 30 --system "Fakturarad till JSON" \
    --out runs/stockholm "$@"
