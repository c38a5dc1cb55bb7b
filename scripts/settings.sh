#!/usr/bin/env bash
# Puts the settings table, which the binary prints, between the markers in README.md. With --check it only says
# whether the one there is right.
set -euo pipefail
cd "$(dirname "$0")/.."
begin='<!-- settings: made by make settings -->' end='<!-- end of settings -->'
table=$(mktemp) new=$(mktemp)
trap 'rm -f "$table" "$new"' EXIT
env -i bin/gateway config --markdown >"$table"
grep -qF "$begin" README.md && grep -qF "$end" README.md || { echo "README.md has no markers for the settings" >&2; exit 1; }
awk -v begin="$begin" -v end="$end" -v table="$table" '
	$0 == begin { print; print ""; while ((getline line < table) > 0) print line; print ""; skipping = 1; next }
	$0 == end { skipping = 0 }
	!skipping { print }' README.md >"$new"
if [ "${1:-}" = --check ]; then
	diff -u README.md "$new" || { echo "README.md: the settings table is not that of the code: run make settings" >&2; exit 1; }
else
	cat "$new" >README.md
fi
