#!/usr/bin/env bash
# Fuzzes every fuzz target for an equal share of the seconds given. Usage: fuzz.sh SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
total=${1:-60}
targets=()
for pkg in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do
	dir=$(go list -f '{{.Dir}}' "$pkg")
	# Only packages that have targets are worth building a test binary for.
	names=$(grep -hoE '^func (Fuzz[A-Za-z0-9_]*)\(' "$dir"/*_test.go | sed -E 's/^func (.*)\(/\1/' || true)
	for name in $names; do targets+=("$pkg $name"); done
done
if [ ${#targets[@]} -eq 0 ]; then
	echo "no fuzz targets" >&2
	exit 1
fi
each=$((total / ${#targets[@]}))
[ "$each" -ge 1 ] || each=1
echo "== ${#targets[@]} fuzz targets, $each s each"
for t in "${targets[@]}"; do
	read -r pkg name <<<"$t"
	echo "-- $name ($pkg)"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "${each}s" "$pkg"
done
