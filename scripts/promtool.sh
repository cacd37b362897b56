#!/usr/bin/env bash
# Puts promtool (Prometheus's own checker of metrics) below .cache/promtool, from Debian's package, without installing it.
# Where it cannot be fetched this says so and ends well: the tests that need promtool are then skipped, and the test run
# lists at its end what was not checked.
set -euo pipefail
cd "$(dirname "$0")/.."

target=.cache/promtool
missing() { echo "promtool: $1; the names, units and help texts of metrics are NOT checked" >&2; exit 0; }
if command -v promtool >/dev/null || [[ -x $target/usr/bin/promtool ]]; then
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || missing "not installed, and this is no Debian system"
mkdir -p .cache
fresh=$(mktemp -d "$PWD/.cache/promtool.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
briefly=(-qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20) # an unreachable mirror must not delay the tests
download() { (cd "$fresh" && apt-get "${briefly[@]}" download prometheus) >/dev/null 2>&1; }
download || { [[ $(id -u) == 0 ]] && apt-get "${briefly[@]}" update >/dev/null 2>&1 && download; } ||
    missing "Debian's package prometheus could not be fetched"
dpkg-deb --fsys-tarfile "$fresh"/prometheus_*.deb | tar -x -C "$fresh" ./usr/bin/promtool
rm -f "$fresh"/*.deb
chmod 755 "$fresh"
rm -rf "$target"
mv "$fresh" "$target"
