#!/usr/bin/env bash
# All tests: first those that start nothing, on both cores; then those with real servers, the whole story last.
set -euo pipefail
cd "$(dirname "$0")/.."
export OPENLEDGER_REQUIRE_SERVERS=1
echo "== tests without servers"
.venv/bin/python -m pytest -n 2 --dist worksteal -m "not server"
echo "== tests with real servers"
.venv/bin/python -m pytest -n 2 --dist loadfile -m "server and not story" --durations=8
echo "== the story, end to end, small"
.venv/bin/python -m pytest -m story
