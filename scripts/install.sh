#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: a C compiler (for the race detector), Node with npm (for the
# stock clients), Chromium (for those that run in a page), redis-server, PostgreSQL, HAProxy and nginx (the tests start
# their own), the Go tools at their pinned versions, the npm packages by their lock files. It uses apt, the Go module proxy
# and npm; what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/versions.sh

say() { printf '== %s\n' "$*"; }

apt_install() {
	if ! command -v apt-get >/dev/null; then
		echo "missing: $*; install them and run this again" >&2
		exit 1
	fi
	say "installing $*"
	local sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	"${sudo[@]}" apt-get update -qq
	DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then
	export PATH="$PATH:/usr/local/go/bin"
fi
if ! go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])'; then
	echo "Go 1.26 or newer is needed: https://go.dev/dl" >&2
	exit 1
fi

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)
command -v git >/dev/null || missing+=(git)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v setpriv >/dev/null || missing+=(util-linux)
# Debian may start a cluster of its own along with it, which the tests leave alone.
if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then missing+=(postgresql); fi
command -v haproxy >/dev/null || missing+=(haproxy)
command -v nginx >/dev/null || missing+=(nginx-light)
if ! command -v node >/dev/null; then missing+=(nodejs); fi
if ! command -v npm >/dev/null; then missing+=(npm); fi
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
	missing+=(chromium)
fi
if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi
if [ "$(node -p 'parseInt(process.versions.node)')" -lt 18 ]; then
	echo "Node 18 or newer is needed; this is $(node --version)" >&2
	exit 1
fi

go_tool() { # name version package
	local dir="$TOOLS/$1-$2"
	[ -x "$dir/$1" ] && return
	say "building $1 $2"
	GOBIN="$dir" go install "$3@$2"
}
go_tool gofumpt "$GOFUMPT" mvdan.cc/gofumpt
go_tool golangci-lint "$GOLANGCI_LINT" github.com/golangci/golangci-lint/v2/cmd/golangci-lint

npm_packages() { # folder
	if [ -e "$1/node_modules/.installed" ] && [ ! "$1/package-lock.json" -nt "$1/node_modules/.installed" ]; then return; fi
	say "installing the npm packages of $1"
	(cd "$1" && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.installed)
}
npm_packages e2e/clients
npm_packages webclient
npm_packages scripts/dockerfilelint

go mod download
