#!/usr/bin/env bash
# Builds the gateway as the container image has it: static, without paths of the machine. Usage: build.sh FILE
set -euo pipefail
out=$(realpath -m "${1:-bin/gateway}")
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOTOOLCHAIN=local
go build -trimpath -ldflags '-s -w' -o "$out" ./cmd/gateway
