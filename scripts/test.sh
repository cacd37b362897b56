#!/usr/bin/env bash
# Beside each other, as each waits for its servers half of the time: lint; the demo end to end; the tests without servers, then those
# with real ones (Kafka, PostgreSQL, S3, anvil, Ray, our services). The workers of a phase share Kafka and PostgreSQL.
#   scripts/test.sh
#   scripts/test.sh kafka    the demo on Apache Kafka alone, which a whole run leaves out because it tests the demo on the embedded log
set -euo pipefail
cd "$(dirname "$0")/.."
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
phase() { echo "== $1"; shift; .venv/bin/python -m pytest -rs --durations=15 --cpu "$@"; }
phase "the demo end to end, with its services killed and without" -n 0 -m story tests/e2e >out/demo.txt 2>&1 &
demo=$!
trap 'kill "$lint" "$demo" 2>/dev/null || true' EXIT
phase "tests without servers" -n 2 --dist worksteal -m "not server" || failed=1
wait "$jars"
phase "tests with real servers" -n 3 --dist loadfile --no-loadscope-reorder -m "server and not story" || failed=1
wait "$demo" || failed=1
cat out/demo.txt
wait "$lint" || failed=1
trap - EXIT
echo "== lint"
cat out/lint.txt
exit $failed
