#!/usr/bin/env bash
# What can be said of the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/versions.sh

echo "== gofumpt"
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs -r "$TOOLS/gofumpt-$GOFUMPT/gofumpt" -l)
if [ -n "$unformatted" ]; then
	printf 'not formatted with gofumpt:\n%s\n' "$unformatted" >&2
	exit 1
fi
echo "== go vet"
go vet ./...
echo "== golangci-lint"
"$TOOLS/golangci-lint-$GOLANGCI_LINT/golangci-lint" run --timeout 10m ./...
echo "== go mod verify"
go mod verify
echo "== settings table"
scripts/build.sh bin/gateway
scripts/settings.sh --check
