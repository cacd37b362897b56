#!/usr/bin/env bash
# Compares the protos with the committed baseline (proto/released), and lists what would break its clients. Fails when it finds
# something and the baseline is that of a release; when there is no baseline, or it is not what `make proto-baseline` wrote.
#   scripts/proto_breaking.sh [BASELINE]     default: proto/released
set -euo pipefail
cd "$(dirname "$0")/.."
baseline=${1:-proto/released}
[ -f "$baseline/image.binpb" ] || { echo "$baseline/image.binpb is missing, so nothing was compared: restore it from git, or make proto-baseline RELEASE=..."; exit 1; }
(cd "$baseline" && sha256sum --check --quiet SHA256SUMS) || { echo "$baseline was changed by hand: only make proto-baseline changes it"; exit 1; }
release=$(cat "$baseline/RELEASE")
now=$(mktemp --suffix=.binpb)
trap 'rm -f "$now"' EXIT
node_modules/.bin/buf build -o "$now"
if found=$(node_modules/.bin/buf breaking "$now" --against "$baseline/image.binpb" 2>&1); then
  echo "compared with the baseline ($release): nothing breaks"
  exit 0
fi
echo "$found"
[ "$release" = unreleased ] || { echo "these changes break clients of $release"; exit 1; }
# Only what buf reports as a difference may pass: an error of buf itself compared nothing.
if grep -qvE '^([^:]+\.proto|<input>):[0-9]+:[0-9]+:' <<<"$found"; then echo "buf did not compare"; exit 1; fi
echo "$(wc -l <<<"$found") differences from the baseline, which no release has yet: listed, not refused"
