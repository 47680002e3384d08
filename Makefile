# What there is to do here. Each recipe is the command itself, to be copied without make.

.DEFAULT_GOAL := help
.PHONY: help build dev-setup test test-all interop run start-cluster stop-cluster

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	    sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

build: ## the release binary, target/release/forebay
	cargo build --release

dev-setup: ## check for what building needs, and say what is missing
	@missing=0; \
	for tool in rustc cargo cc git; do \
	    if command -v $$tool >/dev/null; then \
	        printf '%-6s %s\n' $$tool "$$($$tool --version | head -n 1)"; \
	    else \
	        printf '%-6s missing\n' $$tool; missing=1; \
	    fi; \
	done; \
	if [ $$missing -eq 1 ]; then \
	    echo "Rust comes with rustup; cc and git from your system (apt-get install gcc git)."; \
	    exit 1; \
	fi; \
	for tool in go node python3; do \
	    command -v $$tool >/dev/null || echo "$$tool is missing; only the interop tests need it"; \
	done

test: ## the tests that need nothing but Rust
	cargo test --workspace

test-all: ## all that CI checks: format, lints, tests, interop
	.ci/run

interop: ## the interop tests with real SDKs and a real Collector; installs what they need
	cargo build --release
	tests/interop/install
	tests/interop/run

run: ## the front door on its embedded default
	cargo run --release

start-cluster: build ## one forebay before three sinks, with load, until Ctrl-C
	deploy/local/cluster start

stop-cluster: ## end the cluster that another terminal started
	deploy/local/cluster stop
