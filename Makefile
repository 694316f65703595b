# Platter's tasks. "make" alone lists them.
export PLATTER_CACHE ?= $(CURDIR)/.cache
export PATH := $(PLATTER_CACHE)/go/bin:/usr/local/go/bin:$(PATH):/usr/sbin:/sbin
export GOTOOLCHAIN ?= auto
# Tests listen on sockets in it, whose paths have 107 bytes.
ifneq ($(shell [ "$${#TMPDIR}" -gt 24 ] && echo long),)
export TMPDIR := /tmp
endif
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
DATA    ?= $(CURDIR)/data
FUZZTIME ?= 20s
# The tags of the parts that need cgo; they apply where those parts are.
TAGS := rbd,libnbd,pacific

# Real servers on a busy machine sometimes pause for seconds. A test that fails
# is run once more by itself, and the summary at the end names it either way;
# where more than three fail, nothing is repeated.
SUITE = go tool gotestsum --format pkgname --hide-summary skipped --rerun-fails=1 --rerun-fails-max-failures 3

# The packages with tests that need the real programs.
REAL = $$(grep -rl --include='*_test.go' '^//go:build integration' . | xargs -n1 dirname | sort -u)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: deps-build build ## install what is missing, build, and run the gateway on its defaults (data in ./data)
	bin/platterd --data-dir $(DATA)

test: deps lint unit integration ## install what is missing and run every test, with the real servers and clients

build: deps-build ## bin/platterd and bin/platter
	CGO_ENABLED=1 go build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/platterd ./cmd/platter

deps-build: ## install what building and running needs
	@.ci/deps build

deps: ## install everything: also what the tests need, and libnbd's Go bindings
	@.ci/deps test

unit: ## tests that need Go alone, then those with goroutines under the race detector
	$(SUITE) --packages ./... -- -timeout 30m
	$(SUITE) --packages "$$(go list ./... | grep -v /integration | tr '\n' ' ')" -- -race -short -timeout 30m
	PLATTER_SCHEDULES=10000 $(SUITE) --packages ./integration/schedules -- -count=1 -timeout 30m
	PLATTER_CONSISTENCY=1000 $(SUITE) --packages ./integration/consistency -- -race -count=1 -timeout 30m

integration: build ## tests with the real programs; a missing one is a failure
	$(SUITE) --packages "$(REAL)" -- -tags integration,$(TAGS) -count=1 -timeout 60m -p 1

guest: deps ## a small Debian guest to try things with, in .cache/guest
	integration/guest/build.sh $(PLATTER_CACHE)/guest

soak: build ## the tests at their full counts: hours
	PLATTER_SOAK=1 go test -tags integration,$(TAGS) -count=1 -timeout 8h -p 1 -v ./...

lint: ## gofmt, vet, staticcheck, tidy go.mod
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags integration,$(TAGS) ./...
	go tool staticcheck -tags integration,$(TAGS) ./...
	go mod tidy -diff || { sleep 20; go mod tidy -diff; } # what it fetches may not come at once

fuzz: ## each fuzz test for FUZZTIME (20s)
	@for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p 2>/dev/null | grep '^Fuzz'); do \
		echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

bench: deps build ## benchmarks inside the process, then beside peers on real servers; tables in bin/bench.txt
	go test -run '^$$' -bench . -benchmem ./...
	go test -tags integration,$(TAGS) -run '^$$' -bench . -skip '^Benchmark(NBD|API)$$' -benchtime 1x -count=1 -timeout 2h ./integration/bench

bench-nbd: deps build ## the NBD door beside qemu-nbd and nbdkit: speed, CPU, latency, memory; tables in bin/bench-nbd.txt
	BENCH_FILE=bench-nbd.txt go test -tags integration,$(TAGS) -run '^$$' -bench '^BenchmarkNBD$$' -benchtime 1x -count=1 -timeout 2h ./integration/bench

bench-api: deps build ## the Image API beside a real Glance: requests, transfers, memory, lists of 100,000 images; table in bin/bench-api.txt
	BENCH_FILE=bench-api.txt go test -tags integration,$(TAGS) -run '^$$' -bench '^BenchmarkAPI$$' -benchtime 1x -count=1 -timeout 2h ./integration/bench

clean: ## remove what was built; data and caches stay
	rm -rf bin

.PHONY: help run test build deps-build deps unit integration soak lint fuzz bench bench-nbd bench-api guest clean
.DEFAULT_GOAL := help
