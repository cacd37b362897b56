#!/usr/bin/env bash
# Makes .venv with every pinned and hashed package, and the packages of this repository editable. Arguments: their folders.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "Python 3.11 or newer is missing; on Debian: apt-get install python3 python3-venv" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || {
  echo "Python 3.11 to 3.14 is needed, this is $("$python" --version 2>&1); name another with make PYTHON=python3.12" >&2; exit 1; }
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv 2>/dev/null || { rm -rf .venv; echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
fi
free_gb=$(df -Pk . | awk 'NR==2 {print int($4/1048576)}')
[ -x .venv/bin/ray ] || [ "$free_gb" -ge 8 ] || { echo "Set-up needs 8 GB of free disk here, there are $free_gb" >&2; exit 1; }
echo "Python packages (about 5 GB the first time, most of it torch)"
.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
# The lock is complete; dependencies that overrides.txt leaves out must not be asked for again.
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --require-hashes -r requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --require-hashes -r requirements-nodeps.lock
editable=()
for folder in "$@"; do editable+=(-e "./$folder"); done
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation "${editable[@]}"
# One process compiles what every program imports. Else the first ones all do it at the same time, 12 s of CPU each.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c \
  'import attribution.service, chain_relay.service, datanet.service, finetune.training.run, inference.service, trainer.service'
