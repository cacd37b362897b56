#!/usr/bin/env bash
# Generates proto/python (or the folder given) from proto/: messages, stubs and their types. `make lint` diffs it against what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-proto/python}
bin=$PWD/.venv/bin
mkdir -p "$out"
find "$out" -name '*_pb2*' -delete
mapfile -t files < <(find proto/openledger -name '*.proto' | sort)
PATH=$bin:$PATH "$bin/python" -m grpc_tools.protoc -Iproto -Iproto/third_party \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  "${files[@]}"
# The rules' own messages: protovalidate 2 keeps them private, and descriptors that use them must find them.
PATH=$bin:$PATH "$bin/python" -m grpc_tools.protoc -Iproto/third_party --python_out="$out" --mypy_out="quiet:$out" proto/third_party/buf/validate/validate.proto
# Areas without a service have empty stubs; they say nothing.
for stub in $(find "$out" -name '*_pb2_grpc.py'); do
  grep -q '^class ' "$stub" || rm -f "$stub" "${stub}i"
done
for package in $(find "$out/openledger" -type d) "$out/buf" "$out/buf/validate"; do
  [ -f "$package/__init__.py" ] || printf '"""Generated from proto/; see scripts/generate_proto.sh."""\n' > "$package/__init__.py"
done
touch "$out/openledger/py.typed" "$out/buf/py.typed"
