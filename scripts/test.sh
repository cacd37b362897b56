#!/usr/bin/env bash
# Tests. Without an argument: those that start nothing, on both cores, then the whole story with real processes.
# With "servers": every test with real servers (Kafka, PostgreSQL, anvil, Ray, our services killed mid-story).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE # threads that wait must not take the cores that others need
if [ "${1:-}" = servers ]; then
  .venv/bin/python -m pytest -m "server and not story" --durations=8
  exec .venv/bin/python -m pytest -m story
fi
echo "== tests without servers"
.venv/bin/python -m pytest -n 2 --dist worksteal -m "not server"
echo "== the story, end to end, small, with real processes"
.venv/bin/python -m pytest tests/e2e
