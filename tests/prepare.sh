#!/usr/bin/env bash
# Brings what the tests need beyond pip: npm packages into tests/node_modules, and Chromium through apt where that may be
# done. Says what it had to leave out; the tests that need it then fail and say so, too.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v npm >/dev/null; then
    echo "prepare: left out: npm is not installed, so the official clients cannot be tested (apt-get install nodejs npm)" >&2
elif [ ! -d node_modules/playwright-core ] || [ package.json -nt node_modules/.prepared ]; then
    npm install --no-audit --no-fund --no-package-lock --loglevel=error
    touch node_modules/.prepared
fi

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
    else
        echo "prepare: left out: Chromium (install it as root: apt-get install chromium)" >&2
    fi
fi
