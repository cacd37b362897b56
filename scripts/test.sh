#!/usr/bin/env bash
# Beside each other, as each waits for its servers half of the time: lint; the demo end to end; the tests without servers, then those
# with real ones (Kafka, PostgreSQL, S3, anvil, Ray, our services). The workers of a phase share Kafka and PostgreSQL.
#   scripts/test.sh
#   scripts/test.sh kafka    the demo on Apache Kafka alone, which a whole run leaves out because it tests the demo on the embedded log
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPERTY_EXAMPLES=same # not OPENLEDGER_...: the doctor names such variables that are no setting
export OMP_WAIT_POLICY=PASSIVE # waiting threads must not take the cores that others need
if [ "${1:-}" = kafka ]; then
  exec .venv/bin/python -m pytest -m story tests/kafka
fi
mkdir -p out
scripts/lint.sh >out/lint.txt 2>&1 &
lint=$!
trap 'kill "$lint" 2>/dev/null || true' EXIT
scripts/kafka_jars.sh &
jars=$!
scripts/promtool.sh
failed=0
phase() { # FOLDER TITLE ARGUMENTS...: runs tests; which ones failed is kept in the folder
  echo "== $2"
  rm -rf "out/failed/$1"
  .venv/bin/python -m pytest -o cache_dir="out/failed/$1" -rs --durations=15 --cpu "${@:3}"
}
# What failed is run once more, alone. A test that passes then has a race, or a deadline that a busy machine exceeds: it is named,
# and is a bug to find, but does not stop the work of others. With more than five of them something else is wrong.
alone() { # FOLDER TITLE
  local file="out/failed/$1/v/cache/lastfailed" count
  [ -f "$file" ] && count=$(grep -c '": true' "$file") || return 1
  [ "$count" -le 5 ] || return 1
  echo "== once more, alone: $count of the $2"
  .venv/bin/python -m pytest -o cache_dir="out/failed/$1" -n 0 --last-failed --last-failed-no-failures none -rA --show-capture=no || return 1
  echo "FLAKY: the tests above failed at first. Find out why."
}
phase demo "the demo end to end, with its services killed and without" -n 0 -m story tests/e2e >out/demo.txt 2>&1 &
demo=$!
trap 'kill "$lint" "$demo" 2>/dev/null || true' EXIT
again=()
phase without "tests without servers" -n 2 --dist worksteal -m "not server" || again+=(without)
wait "$jars"
phase with "tests with real servers" -n 3 --dist loadfile --no-loadscope-reorder -m "server and not story" || again+=(with)
wait "$demo" || again+=(demo)
cat out/demo.txt
wait "$lint" || failed=1
trap - EXIT
for tests in ${again[@]+"${again[@]}"}; do alone "$tests" "tests ($tests)" || failed=1; done
echo "== lint"
cat out/lint.txt
exit $failed
