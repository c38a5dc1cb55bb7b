#!/usr/bin/env bash
# The steps of the Dockerfile as far as a machine without a container engine can take them: the same build, a binary
# that needs no other file, and that starts and stops as a user who owns nothing but the data directory.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh bin/gateway
if ldd bin/gateway >/dev/null 2>&1; then
	echo "bin/gateway is linked dynamically" >&2
	ldd bin/gateway >&2
	exit 1
fi
if go version -m bin/gateway | grep -qE 'CGO_ENABLED=1'; then
	echo "bin/gateway was built with cgo" >&2
	exit 1
fi
if strings -a bin/gateway 2>/dev/null | grep -qF "$PWD/"; then
	echo "bin/gateway holds paths of this machine" >&2
	exit 1
fi
HOLDFAST_E2E_BINARY="$PWD/bin/gateway" go test -count=1 -run 'TestRunsAsNobodyInParticular' ./e2e
ls -l bin/gateway | awk '{ printf "bin/gateway: static, %.1f MiB\n", $5 / 1048576 }'
