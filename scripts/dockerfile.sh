#!/usr/bin/env bash
# Lints the Dockerfile: with dockerfilelint, and for what it does not know.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/dockerfilelint/node_modules/.bin/dockerfilelint Dockerfile

fail() { echo "Dockerfile: $*" >&2; exit 1; }
last=$(awk '/^FROM /{ stage = "" } { stage = stage $0 "\n" } END { printf "%s", stage }' Dockerfile)
grep -qx 'FROM scratch' <<<"$last" || fail "the final image is not made from scratch"
grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' <<<"$last" || fail "the final image does not run as a numbered user other than root"
grep -qE '^ENTRYPOINT \["/gateway"\]$' <<<"$last" || fail "the entry point is not the gateway, in exec form"
grep -qF 'scripts/build.sh /out/gateway' Dockerfile || fail "the image's binary is not built by scripts/build.sh"
! grep -qE '^ADD ' Dockerfile || fail "ADD where COPY would do"
! grep -E '^FROM ' Dockerfile | grep -vE '^FROM (scratch|[^ ]+:[0-9][^ ]*)( AS [a-z]+)?$' | grep -q . || fail "an image without a pinned version"
# go.mod says which Go it takes; the image has to have at least that.
want=$(sed -nE 's/^go ([0-9]+\.[0-9]+).*/\1/p' go.mod)
grep -qE "^FROM golang:${want//./\\.}[.-]" Dockerfile || fail "the build image is not of Go $want, which go.mod asks for"
while read -r path; do
	[ -e "$path" ] || fail "COPY of $path, which is not there"
done < <(sed -nE 's/^COPY ([^-].*) [^ ]+$/\1/p' Dockerfile | tr ' ' '\n')
echo "Dockerfile: in order"
