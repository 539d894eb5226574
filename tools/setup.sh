#!/bin/sh
# Make .venv from the locked requirements. Needs git, make and a python3 (3.11 to 3.13) with its venv module.
# The stamp is written by the Makefile when this has ended well; whatever an interruption left is mended here.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

interpreter() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11, 3.12 or 3.13 on PATH ($(python3 --version 2>&1))." >&2
    echo "setup: install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 setup" >&2
    exit 1
}

# A copied or moved checkout has commands whose first line names the old place; pip cut short has no pip.
if ! fits $venv/bin/python || ! $venv/bin/python -m pip --version >/dev/null 2>&1 \
    || ! grep -qs "$PWD/$venv" $venv/bin/pip; then
    python=$(interpreter)
    rm -rf $venv
    if ! "$python" -m venv $venv; then
        echo "setup: $python cannot make a virtual environment. Debian: apt install python3-venv" >&2
        rm -rf $venv
        exit 1
    fi
fi

$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
uv="$venv/bin/uv pip"
$uv sync --quiet --python $venv/bin/python --require-hashes requirements/uv.txt requirements/dev.txt
$uv install --quiet --python $venv/bin/python --no-deps --no-build-isolation -e packages/sdk -e packages/node

# The pages are tested in a real browser, units with systemd's own checker, central on PostgreSQL; elsewhere than on a
# Debian machine that we may change, those tests are skipped.
missing=
command -v chromium >/dev/null 2>&1 || missing=chromium
command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
command -v initdb >/dev/null 2>&1 || [ -d /usr/lib/postgresql ] || missing="$missing postgresql"
if [ -n "$missing" ] && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    get="apt-get install --quiet --quiet --yes --no-install-recommends $missing"
    if ! { $get >/dev/null 2>&1 \
        || { apt-get update --quiet --quiet >/dev/null 2>&1 && $get >/dev/null 2>&1; }; }; then
        echo "setup: could not install $missing; tests that need it will be skipped" >&2
    fi
fi
