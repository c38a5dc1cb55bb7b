#!/usr/bin/env bash
# Checks the web client: types, lint, unit tests, and that dist/, which is committed and goes into the binary, is what its
# source makes. With --build it makes dist/ anew instead.
set -euo pipefail
cd "$(dirname "$0")/../webclient"
if [ "${1:-}" = --build ]; then
	node build.mjs dist
	exit
fi
echo "== webclient: types"
npx tsc --noEmit
echo "== webclient: eslint"
npx eslint --max-warnings 0 .
echo "== webclient: unit tests"
npx vitest run --reporter=dot
echo "== webclient: dist"
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
node build.mjs "$made/dist"
if ! diff -r dist "$made/dist" >/dev/null; then
	diff -rq dist "$made/dist" >&2 || true
	echo "webclient/dist is not what its source makes: run make webclient-dist" >&2
	exit 1
fi
