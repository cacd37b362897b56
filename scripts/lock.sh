#!/usr/bin/env bash
# Resolves every pyproject.toml together into requirements.lock. No registry address is written.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t projects < <(git ls-files --cached --others --exclude-standard "*/pyproject.toml")
overrides=$(mktemp)
trap 'rm -f "$overrides"' EXIT
cat overrides.txt >"$overrides"
sed -n "s/^name = \"\(openledger-.*\)\"/\1 ; sys_platform == 'never'/p" "${projects[@]}" >>"$overrides" # installed from their folders, never from a registry
compile=(.venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --no-header)
"${compile[@]}" --python-version 3.11 --python-platform linux --all-extras --override "$overrides" -o requirements.lock requirements-dev.in "${projects[@]}"
"${compile[@]}" --no-deps -o requirements-nodeps.lock requirements-nodeps.in
"${compile[@]}" -o requirements-uv.lock requirements-uv.in
