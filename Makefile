# Everything a contributor or a CI machine runs. `make help` lists it.
#
# `make run` and `make test` are complete: each installs what it misses on a Debian machine that has
# only cargo and make. Both build the dev profile, so RocksDB, the slow part, is compiled once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Outside the clone, so that a fresh clone does not compile everything again.
CACHE := $(or $(TERCET_CACHE),$(HOME)/.cache/tercet)
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),$(CACHE)/target))
export PATH := $(PATH):$(HOME)/.cargo/bin

TERCET := $(CARGO_TARGET_DIR)/debug/tercet

# What `make run` starts.
REPLICAS ?= 3
DIR ?= ./tercet-data
PORT ?= 5000

CARGO_DENY_VERSION := 0.20.2
MDBOOK_VERSION := 0.5.4
# As gungraun in Cargo.toml: the two refuse each other's versions.
GUNGRAUN_VERSION := 0.20.0
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
MDBOOK := $(CACHE)/tools/mdbook-$(MDBOOK_VERSION)/bin/mdbook
GUNGRAUN := $(CACHE)/tools/gungraun-runner-$(GUNGRAUN_VERSION)/bin/gungraun-runner

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

.PHONY: run
run: build ## Start a three-replica cluster on this machine (REPLICAS=, DIR=, PORT=)
	@exec $(TERCET) dev --replicas $(REPLICAS) --dir $(DIR) --port $(PORT)

.PHONY: status
status: ## Show the replicas that `make run` started
	@$(TERCET) status --ops 127.0.0.1:$$(( $(PORT) + 2 ))

.PHONY: build
build: build-deps ## Build the binary (dev profile)
	cargo build --locked --bin tercet

.PHONY: test
test: test-deps build ## Run all tests (as root)
	cargo test --locked --workspace

# Without SEED= a new one is drawn and printed. SCENARIO= takes names; `tercet-chaos list` shows them. With
# MINUTES= the list is repeated with other seeds until that time is over. Built as for the tests: only then does
# the registry have its failpoints.
.PHONY: chaos
chaos: test-deps build-deps ## Run the fault scenarios in full (SCENARIO=, MINUTES=, SEED=, REPORT=); as root
	cargo test --locked --workspace --no-run
	$(CARGO_TARGET_DIR)/debug/tercet-chaos run $(or $(SCENARIO),--all) --full \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		--report $(or $(REPORT),$(CARGO_TARGET_DIR)/chaos)

# As root, with the machine to itself, for about half an hour. ROWS= takes numbers or names; a wrong one shows all.
.PHONY: bench
bench: test-deps build-deps ## Measure Tercet beside its peers and write docs/src/benchmarks.md (ROWS=, ROUNDS=, SECONDS_EACH=)
	cargo build --locked --release -p tercet -p tercet-chaos --bins
	$(CARGO_TARGET_DIR)/release/tercet-chaos bench --out docs/src $(if $(ROWS),--rows $(ROWS)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH))

# As root, with the machine to itself, for about a quarter of an hour. ROWS= as above.
.PHONY: growth
growth: build-deps ## Measure what things cost as they get more, and write docs/src/growth-figures.md (ROWS=)
	cargo build --locked --release -p tercet -p tercet-chaos --bins
	$(CARGO_TARGET_DIR)/release/tercet-chaos bench --growth --out docs/src $(if $(ROWS),--rows $(ROWS))

.PHONY: check-kubernetes
check-kubernetes: ## Check the files of chaos/kubernetes against the schemas of their tools
	bash chaos/setup.sh
	$(CACHE)/python/bin/python chaos/kubernetes/validate.py

# After `make build`, unless TERCET_BIN= names another registry. EXPERIMENTS= takes names of chaos/experiments.
.PHONY: experiments
experiments: ## Run the Chaos Toolkit experiments against a local cluster, after a build (EXPERIMENTS=, TERCET_BIN=)
	bash chaos/setup.sh
	TERCET_BIN=$(or $(TERCET_BIN),$(TERCET)) $(CACHE)/python/bin/python chaos/experiments/run.py $(EXPERIMENTS)

.PHONY: release
release: build-deps ## Build the optimised binary
	cargo build --locked --release --bin tercet
	@echo "built $(CARGO_TARGET_DIR)/release/tercet"

.PHONY: check
check: fmt-check clippy deny ## Format, lints, dependency rules: what a change must pass besides the tests

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: fmt-check
fmt-check:
	cargo fmt --all --check

# The two packages of the simulation are the sources of storage and raft once more: looked at as what the simulation
# is built on, but not with their tests, which are those of the originals.
.PHONY: clippy
clippy: build-deps
	cargo clippy --locked --workspace --exclude tercet-storage-simulated --exclude tercet-raft-simulated \
		--all-targets -- -D warnings

# Advisories are left out: their database is not on a package registry. `make audit` has them.
# DENY_LOG=error leaves out the list of crates that are there in two versions.
DENY_LOG ?= warn

.PHONY: deny
deny: $(CARGO_DENY)
	$(CARGO_DENY) --workspace --locked -L $(DENY_LOG) check --hide-inclusion-graph bans licenses sources

.PHONY: audit
audit: $(CARGO_DENY) ## Check dependencies against the RustSec advisories (needs the internet)
	$(CARGO_DENY) --workspace --locked check advisories

# Of the dev profile, in which the tests have compiled everything already: see docs/src/instructions.md.
.PHONY: instructions
instructions: instructions-deps ## Count the instructions of the hot paths, compare with tests/instructions.json
	PATH="$(dir $(GUNGRAUN)):$$PATH" python3 tests/instructions.py compare

.PHONY: instructions-accept
instructions-accept: instructions-deps ## Write what is counted into tests/instructions.json
	PATH="$(dir $(GUNGRAUN)):$$PATH" python3 tests/instructions.py accept

.PHONY: instructions-deps
instructions-deps: build-deps $(GUNGRAUN)
	@command -v valgrind >/dev/null || bash chaos/setup.sh

.PHONY: docs
docs: api-docs book ## Build the book and the API documentation

.PHONY: api-docs
api-docs: build-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: book
book: $(MDBOOK)
	$(MDBOOK) build docs
	@echo "built docs/book/index.html"

# The tools build in a target directory of their own, which goes afterwards: nothing in it is shared. They are not optimised:
# to do that takes longer than all that they will ever do.
$(CARGO_DENY):
	cargo install --quiet --locked --debug --root $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION) \
		--target-dir $(CACHE)/tools-target cargo-deny --version $(CARGO_DENY_VERSION)
	rm -rf $(CACHE)/tools-target

$(MDBOOK):
	cargo install --quiet --locked --debug --root $(CACHE)/tools/mdbook-$(MDBOOK_VERSION) \
		--target-dir $(CACHE)/tools-target mdbook --version $(MDBOOK_VERSION)
	rm -rf $(CACHE)/tools-target

$(GUNGRAUN):
	cargo install --quiet --locked --debug --root $(CACHE)/tools/gungraun-runner-$(GUNGRAUN_VERSION) \
		--target-dir $(CACHE)/tools-target gungraun-runner --version $(GUNGRAUN_VERSION)
	rm -rf $(CACHE)/tools-target

# RocksDB needs a C++ compiler, and libclang with its headers to read RocksDB's. LIBCLANG_PATH says
# that libclang is somewhere else than where Debian puts it.
.PHONY: build-deps
build-deps:
	@if ! command -v cargo >/dev/null; then \
		echo "cargo is missing: install Rust 1.95 or newer with rustup, then run make again" >&2; exit 69; \
	fi; \
	missing=""; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	[ -n "$${LIBCLANG_PATH:-}" ] \
		|| { ls /usr/lib/llvm-*/lib/libclang*.so* && ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h; } >/dev/null 2>&1 \
		|| missing="$$missing libclang-dev"; \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
		echo "missing:$$missing (Debian's names). Install them, then run make again" >&2; exit 69; \
	fi; \
	sudo=""; \
	if [ "$$(id -u)" != 0 ]; then \
		command -v sudo >/dev/null || { echo "missing:$$missing. Install as root: apt-get install$$missing" >&2; exit 69; }; \
		sudo=sudo; \
	fi; \
	echo "installing$$missing"; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
		install -y -qq --no-install-recommends $$missing

# Container clients and the material of the test images. The refusal comes now and not after the build.
.PHONY: test-deps
test-deps:
	@[ "$$(id -u)" = 0 ] || { echo "run make test as root: tests start a Docker daemon and unpack Debian packages;" \
		"without root: cargo test --workspace --exclude tercet-chaos" >&2; exit 77; }
	bash chaos/setup.sh
