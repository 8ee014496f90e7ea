# SPDX-License-Identifier: Apache-2.0
# The few commands of this repository; `make help` lists them. Each ends with one summary line.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where the demo runs: sandbox (made here, no container engine), kind, or existing with KUBECONFIG, REGISTRY, DOMAIN, INGRESS_CLASS.
CLUSTER ?= sandbox
DOMAIN ?=
INGRESS_CLASS ?=
REGISTRY ?=
CA_FILE ?=
NAME ?= demo

SANDBOX := bin/sandbox
# The environment's KUBECONFIG is meant only where the cluster is an existing one.
TARGET := --cluster '$(CLUSTER)' --name '$(NAME)' --domain '$(DOMAIN)' --ingress-class '$(INGRESS_CLASS)' --registry '$(REGISTRY)' --ca-file '$(CA_FILE)' $(if $(filter existing,$(CLUSTER)),--kubeconfig '$(KUBECONFIG)')

help: ## list these commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(SANDBOX) ## a cloud's cluster and a company's, the platform, participants in both; what they exchange, approve, refuse and prove, each shown and timed
	@$(SANDBOX) demo $(TARGET)

demo-down: $(SANDBOX) ## remove the demo and its clusters
	@$(SANDBOX) demo down $(TARGET)
	@echo "demo-down: the demo is gone"

test: ## everything, what fails fastest first: lint, unit, fuzzing, operators, protocol kits, Eclipse EDC, the sandbox, end to end
	@test/run lint unit fuzz operators tck interop bench sandbox e2e

lint: ## formatting, licence headers, golangci-lint with the import wall, drift of generated files
	@test/run lint

test-unit: ## Go tests that need no cluster (they start PostgreSQL and an API server themselves)
	@test/run unit operators

# For how long each target runs; `make test` takes 1 s.
FUZZ_TIME ?= 1m

fuzz: ## every parser of what others send, for FUZZ_TIME (1m) each with made-up input
	@FUZZ_TIME='$(FUZZ_TIME)' test/run fuzz

tck: ## the public conformance kits against the connector
	@test/run tck

interop: ## negotiations and transfers with Eclipse EDC in both directions
	@test/run interop

bench: ## how fast and how large Kaphera is beside Eclipse EDC, measured in one run
	@BENCH=full test/run bench

e2e: ## sandbox clusters with the whole platform and a company of its own, and the stories on them
	@test/run e2e

# How long each part is away.
OUTAGE ?= 30m

soak: ## parts of the platform away for OUTAGE (30m) each while connectors negotiate, then nothing lost and nothing doubled
	@OUTAGE='$(OUTAGE)' test/run soak

generate: $(SANDBOX) ## deep copies, CRDs, install files, client, templates, third-party notices
	@$(SANDBOX) check generate
	@echo "generate: done"

envtest: $(SANDBOX) ## build etcd, kube-apiserver and kubectl for the operators' tests
	@echo "envtest: $$($(SANDBOX) envtest)"

# The go command itself knows what is up to date.
$(SANDBOX): FORCE
	@cd sandbox && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o ../$(SANDBOX) .

FORCE:

.PHONY: help demo demo-down test lint test-unit fuzz tck interop bench e2e soak generate envtest FORCE
