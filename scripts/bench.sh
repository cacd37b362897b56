#!/usr/bin/env bash
# Every benchmark, one after the other, each against its peer in the same run. Results go to out/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out/bench
for program in bench/*_bench.py; do
  name=$(basename "$program" .py)
  echo "== $name"
  .venv/bin/python "$program" | tee "out/bench/$name.txt"
done
