# make run and make test are what a fresh machine needs; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9/_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: build ## build the gateway and run it on its embedded default
	@scripts/run.sh

.PHONY: build
build: ## the static binary bin/gateway
	@scripts/build.sh bin/gateway

.PHONY: test
test: install check webclient unit fuzz static dockerfile e2e ## install what is missing, then run everything

.PHONY: install
install: ## what the tests need, where it is missing
	scripts/install.sh

.PHONY: check
check: ## formatting, vet, linters, the settings table
	scripts/check.sh

.PHONY: webclient
webclient: ## types, lint and unit tests of the web client, and whether its dist is what its source makes
	scripts/webclient.sh

.PHONY: webclient-dist
webclient-dist: ## build the web client anew into webclient/dist
	scripts/webclient.sh --build

.PHONY: unit
unit: ## all packages but e2e, with the race detector, shuffled
	go test -race -shuffle=on -timeout 10m $$(go list ./... | grep -v '/e2e$$')

.PHONY: fuzz
fuzz: ## a minute of fuzzing, split over the fuzz targets (FUZZ_SECONDS in all)
	scripts/fuzz.sh $${FUZZ_SECONDS:-60}

.PHONY: static
static: ## the binary of the container image: static, and runs as nobody in particular
	scripts/static.sh

.PHONY: dockerfile
dockerfile: ## lint the Dockerfile
	scripts/dockerfile.sh

.PHONY: e2e
e2e: build ## stock clients, bad networks, bad input, kills, clusters, against the static binary
	HOLDFAST_E2E_BINARY=$(CURDIR)/bin/gateway go test -race -shuffle=on -count=1 -timeout 45m -v ./e2e

.PHONY: chaos
chaos: build ## the bad-network runs of e2e, one gateway and a cluster, ten times as long (E2E_SCALE)
	HOLDFAST_E2E_BINARY=$(CURDIR)/bin/gateway E2E_SCALE=$${E2E_SCALE:-10} go test -count=1 -timeout 3h -v -run BadNetwork ./e2e

.PHONY: bench
bench: build ## gateway and bare relay side by side (about eight minutes, two cores)
	go run ./bench/cmd/suite -gateway bin/gateway $(BENCH)

.PHONY: bench-cluster
bench-cluster: build ## two gateways, Redis and PostgreSQL (about five minutes, two cores)
	go run ./bench/cmd/suite -cluster -gateway bin/gateway $(BENCH)

.PHONY: settings
settings: build ## write the settings table of README.md anew
	scripts/settings.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
