# mapigate. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help build demo test test-ad lint doc bench bench-smoke build-tools test-tools bench-peers

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: build-tools ## Build target/release/mapigate
	cargo build --release

demo: build-tools ## Build, then play a whole site on this machine through a bad day; DEMO="--keep" keeps it running
	cargo run --release --quiet -- demo $(DEMO)

test: build-tools test-tools ## Format, lints, documentation, then every test
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --quiet
	@if cargo nextest --version >/dev/null 2>&1; then \
	  echo "cargo test --doc"; cargo test --doc --quiet; \
	  echo "cargo nextest run"; cargo nextest run --no-fail-fast; \
	else \
	  echo "cargo test"; cargo test --no-fail-fast; \
	fi
	@if ! why=$$(tests/ad/possible.sh); then \
	  echo "skipped: make test-ad, mapigate with an Active Directory ($$why)"; \
	elif ! $(AS_ROOT) tests/ad/up.sh $(AD_LAB); then \
	  echo "SKIPPED: make test-ad. This machine does not carry an Active Directory; why stands above"; \
	else \
	  $(MAKE) --no-print-directory test-ad; \
	fi

test-ad: build-tools test-tools ## Bring up an Active Directory on the loopback, test against it, take it down; needs root
	@$(AS_ROOT) tests/ad/up.sh $(AD_LAB); \
	trap '$(AS_ROOT) tests/ad/down.sh $(AD_LAB)' EXIT; \
	MAPIGATE_AD_LAB=$(abspath $(AD_LAB)) KRB5_CONFIG=$(abspath $(AD_LAB))/krb5.conf \
	  cargo test --test ad -- --include-ignored

# Where the directory of `make test-ad` is kept between runs.
AD_LAB ?= target/ad

lint: build-tools ## Format and lints; dependencies too where cargo-deny is installed
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then \
	  echo "cargo deny check"; cargo deny check; \
	else \
	  echo "cargo-deny is not installed: dependencies are not checked"; \
	fi
	@if command -v promtool >/dev/null; then promtool check rules conf/alerts.yaml; fi

doc: build-tools ## The crate's documentation; begin with the room called manual
	cargo doc --no-deps --document-private-items
	@echo "target/doc/mapigate/manual/index.html"

bench: build-tools bench-peers ## Cost per request beside nginx and HAProxy; takes a while
	cargo bench --bench end_to_end -- $(BENCH)

bench-smoke: build-tools bench-peers ## The same, only to see that it runs
	cargo bench --bench end_to_end -- --smoke $(BENCH)

# What the build needs beside Rust: file that shows it is there, package, what it is for.
build-tools:
	@command -v cargo >/dev/null || { echo "Rust 1.88 or later is needed: https://rustup.rs" >&2; exit 1; }
	@$(call ensure,cc,gcc,compiles the C and assembly of aws-lc and zlib-ng)
	@$(call ensure,cmake,cmake,configures zlib-ng)
	@[ -e /usr/include/gssapi/gssapi_ext.h ] || { $(call install,libkrb5-dev,Kerberos: headers and library); }
	@ls /usr/lib/*/libclang-*.so* /usr/lib/llvm*/lib/libclang* >/dev/null 2>&1 \
	  || { $(call install,libclang-dev,reads the headers of Kerberos for the build); }
	@[ -e /usr/include/stdio.h ] || { $(call install,libc6-dev,headers of the C library); }

# Tests that are a person's own hand use the person's own tool.
test-tools:
	@$(call ensure,curl,curl,signs on in tests as a person would)
	@command -v tshark >/dev/null || { $(call install,tshark,captures packets for the test of the accounts); } \
	  || echo "could not install tshark: the accounts are not compared with a capture"

# nginx and HAProxy are what we are compared with. Without root or a package mirror the bench goes on without them.
bench-peers:
	@for peer in nginx haproxy; do \
	  if ! PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v $$peer >/dev/null; then \
	    { $(call install,$$peer,mapigate is compared with it); } \
	      || echo "could not install $$peer: the bench goes on without it"; \
	  fi; \
	done

# $(call ensure,PROGRAM,PACKAGE,WHY): installs the package where the program is missing.
ensure = command -v $(1) >/dev/null || { $(call install,$(2),$(3)); }

# $(call install,PACKAGE,WHY)
install = echo "installing the Debian package $(1): $(2)"; \
	  $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null

# Commands that need root run as they are when we are root.
AS_ROOT ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
