#!/usr/bin/env bash
# All tests: those that start nothing, those with real servers (Kafka, PostgreSQL, S3, anvil, Ray, our services), the stories
# told end to end by real processes. Two at a time, but for the stories, which need both cores.
# With "kafka": the story on Kafka alone, which `make test` leaves out because it tells it on the embedded log.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE # threads that wait must not take the cores that others need
run() { echo "== $1"; shift; .venv/bin/python -m pytest "$@"; }
if [ "${1:-}" = kafka ]; then
  run "the story on Kafka" -m story tests/kafka
  exit
fi
run "tests without servers" -n 2 --dist worksteal -m "not server"
run "tests with real servers" -n 2 --dist loadfile --durations=10 -m "server and not story"
run "the story, and the story while its services are killed" -m story tests/e2e tests/faults
