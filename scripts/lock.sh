#!/usr/bin/env bash
# Resolves every pyproject.toml together into requirements.lock. No registry address is written.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --no-header)
"${compile[@]}" --python-version 3.11 --python-platform linux --override overrides.txt -o requirements.lock requirements-dev.in \
  proto/python/pyproject.toml libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml examples/*/pyproject.toml
"${compile[@]}" --no-deps -o requirements-nodeps.lock requirements-nodeps.in
"${compile[@]}" -o requirements-uv.lock requirements-uv.in
