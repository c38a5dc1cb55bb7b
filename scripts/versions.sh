# Versions of the tools that the checks use, sourced by the other scripts. Both build with Go 1.26.
GOFUMPT=v0.12.0
GOLANGCI_LINT=v2.13.0
# Where they are kept, by version.
TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/bin/tools"
# A toolchain that is not there must not be asked for.
export GOTOOLCHAIN=local
