#!/usr/bin/env bash
# Every benchmark of speed, one after the other, each against its peer in the same run; then one table of all.
#   scripts/bench.sh [--quick] [NAME...]     NAME: grpc, inference_isolation, ... (default: all but training)
# --quick is a look at whether they run, and gives no figures; nor does it cover one that has no such option.
# What tuning gains and forgets is not speed and takes twenty minutes by itself: `scripts/bench.sh training`.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE # threads that wait must not take the cores that others need
quick=()
names=()
for argument in "$@"; do
  if [ "$argument" = --quick ]; then quick=(--quick); else names+=("$argument"); fi
done
if [ ${#names[@]} -eq 0 ]; then
  for program in bench/*_bench.py; do
    name=$(basename "$program" _bench.py)
    [ "$name" = training ] || names+=("$name")
  done
fi
mkdir -p out/bench
failed=0
for name in "${names[@]}"; do
  if [ ${#quick[@]} -gt 0 ] && ! grep -q -e '"--quick"' "bench/${name}_bench.py"; then
    echo "== $name has no --quick"
    continue
  fi
  echo "== $name"
  begun=$SECONDS
  rm -f "out/bench/$name.json" # a run that fails must not show an earlier one's figures
  .venv/bin/python "bench/${name}_bench.py" ${quick[@]+"${quick[@]}"} --json "out/bench/$name.json" 2>"out/bench/$name.err" | tee "out/bench/$name.txt" ||
    { failed=1; tail -5 "out/bench/$name.err"; }
  echo "-- $name took $((SECONDS - begun)) s"
done
.venv/bin/python bench/table.py out/bench ${quick[@]+"${quick[@]}"} | tee out/bench/table.md
exit $failed
