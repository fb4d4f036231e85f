SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := /usr/local/go/bin:$(PATH)

# The kernel that kernel tests run on: uml, smp (two CPUs) or host.
export BOX ?= uml
export BOX_TIMEOUT ?= 25m
# How long each fuzz test runs.
FUZZTIME ?= 30s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing, on Debian 12 as root
	@tools/setup

.PHONY: build
build: build/box build/csi-dmthin ## build the programs into build/

version = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

build/csi-dmthin: FORCE
	CGO_ENABLED=0 go build -buildvcs=false -ldflags '-X main.version=$(version)' -o $@ ./cmd/csi-dmthin

# The programs of the tests carry no version, so a clone that git distrusts is no
# hindrance. The box must run without a libc.
build/box build/demo build/bench: FORCE
	@CGO_ENABLED=0 go build -buildvcs=false -o $@ ./test/$(@F)

build/cluster: FORCE
	@CGO_ENABLED=0 go build -buildvcs=false -o $@ ./test/e2e/cluster

build/stories: FORCE
	@CGO_ENABLED=0 go build -C test/e2e/stories -buildvcs=false -o $(CURDIR)/$@ .

build/tally: FORCE
	@go build -buildvcs=false -o $@ ./test/box/tally

.PHONY: demo
demo: setup build/box build/csi-dmthin build/demo ## show on a real kernel what is here
	@build/box build/demo

.PHONY: test
test: setup ## run all tests: this is the one to run
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-kernel
	@$(MAKE) --no-print-directory test-smp

# Crashes are tried without the race detector, which would make it take an hour.
.PHONY: test-unit
test-unit: ## run the tests that need no device-mapper, with the race detector
	go test -race -timeout 5m -skip '^Test(Kernel|Torture)' ./...
	go test -C test/sanity -timeout 5m -skip '^TestKernel' ./...
	go test -C test/chart -count=1 -timeout 10m ./...
	go test -C test/e2e/stories -timeout 5m ./...
	go test -v -count=1 -timeout 5m -run '^TestTorture' ./pkg/deviceset

.PHONY: torture
torture: ## try every crash that the simulator can, not a slice of them: some ten minutes
	CSI_DMTHIN_TORTURE=all CSI_DMTHIN_STEPS=1000000 go test -v -count=1 -timeout 60m -run '^Test(Torture|Walk)' ./pkg/deviceset

# Tests that need device-mapper are named TestKernel, and TestKernelSMP if they
# need several CPUs too. They run without the race detector: its memory does not
# fit into a user mode Linux.
packages = $(sort $(dir $(shell grep -rl --include='*_test.go' '^func $(1)' ./cmd ./pkg)))
kernel_tests = build/tally "kernel tests ($(BOX))" go test -json -count=1 -timeout 20m -exec $(CURDIR)/build/box

.PHONY: test-kernel
test-kernel: PKG ?= $(call packages,TestKernel)
test-kernel: build/box build/tally ## run the kernel tests in the box; PKG=./pkg/devmapper/... BOX=smp
	$(kernel_tests) -run '^TestKernel' $(if $(filter uml,$(BOX)),-skip '^TestKernelSMP') $(PKG)
	@$(MAKE) --no-print-directory test-conformance

# The suites of others are modules of their own: what they need is no dependency of the
# product.
.PHONY: test-conformance
test-conformance: build/box build/tally ## run the CSI and the graph driver suite in the box
	$(subst go test,go test -C test/sanity,$(kernel_tests)) -run '^TestKernel' ./...
	CGO_ENABLED=0 $(subst go test,go test -C test/graphtest,$(kernel_tests)) -run '^TestKernel' ./...

.PHONY: test-smp
test-smp: BOX := $(if $(filter uml,$(BOX)),smp,$(BOX))
test-smp: PKG ?= $(call packages,TestKernelSMP)
test-smp: build/box build/tally ## run the kernel tests that need several CPUs
	$(kernel_tests) -run '^TestKernelSMP' $(PKG)

.PHONY: image
image: ## build the image, with docker or buildah: IMAGE= BASE= GO_IMAGE= ARCH=
	@tools/image

.PHONY: setup-e2e
setup-e2e: setup
	@tools/setup e2e

.PHONY: cluster
cluster: setup-e2e build/box build/cluster ## bring up a Kubernetes cluster whose nodes have thin pools; build/cluster down ends it
	@build/cluster up

# The first time Kubernetes is built, which takes ten minutes and more. The stories have no
# network but the cluster's, so they are built before.
.PHONY: e2e
e2e: setup-e2e build/box build/cluster build/stories ## run the end-to-end stories on a cluster of two nodes
	@build/cluster driver-image build/driver.tar
	@build/cluster run -image build/driver.tar -collect build/e2e-failure -timeout 30m -- build/stories -chart charts/csi-dmthin

.PHONY: e2e-kind
e2e-kind: setup build/stories ## run them on kind, where there is a Docker engine and a kernel with dm-thin
	@test/e2e/kind/run

.PHONY: lint
lint: setup build/bin/golangci-lint ## check for mistakes, format, and who imports whom
	build/bin/golangci-lint run
	cd test/sanity && ../../build/bin/golangci-lint run -c ../../.golangci.yml
	cd test/chart && ../../build/bin/golangci-lint run -c ../../.golangci.yml
	cd test/e2e/stories && ../../../build/bin/golangci-lint run -c ../../../.golangci.yml
	cd test/graphtest && CGO_ENABLED=0 ../../build/bin/golangci-lint run -c ../../.golangci.yml

build/bin/golangci-lint: tools/go.mod
	go build -C tools -o $(CURDIR)/build/bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: fmt
fmt: ## format the code
	go fmt ./...

.PHONY: fuzz
fuzz: ## run each fuzz test for FUZZTIME=30s
	@for package in $$(go list ./...); do \
	  for function in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	    go test -run '^$$' -fuzz "^$$function$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$package; \
	  done; \
	done

.PHONY: bench
bench: setup build/box build/bench ## measure, in the box
	@build/box -mem 4G build/bench

.PHONY: clean
clean: ## remove what was built
	rm -rf build

.PHONY: FORCE
FORCE:
