#!/usr/bin/env bash
# Puts promtool (Prometheus's own checker of metrics) below .cache/promtool, from Debian's package, without installing it.
# Where that cannot be had it says so and ends well: the tests then go by the rules written in tests/support/promlint.py alone.
set -euo pipefail
cd "$(dirname "$0")/.."

target=.cache/promtool
if command -v promtool >/dev/null || [[ -x $target/usr/bin/promtool ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "promtool: not here, and no Debian package to be had; metrics are checked by tests/support/promlint.py alone" >&2
    exit 0
fi
mkdir -p .cache
fresh=$(mktemp -d "$PWD/.cache/promtool.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
soon=(-qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20) # a mirror that is away must not hold up the tests
get() { (cd "$fresh" && apt-get "${soon[@]}" download prometheus) >/dev/null 2>&1; }
get || { [[ $(id -u) == 0 ]] && apt-get "${soon[@]}" update >/dev/null 2>&1 && get; } || {
    echo "promtool: Debian's package prometheus could not be fetched; metrics are checked by tests/support/promlint.py alone" >&2
    exit 0
}
dpkg-deb --fsys-tarfile "$fresh"/prometheus_*.deb | tar -x -C "$fresh" ./usr/bin/promtool
rm -f "$fresh"/*.deb
chmod 755 "$fresh"
rm -rf "$target"
mv "$fresh" "$target"
