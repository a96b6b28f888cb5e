# Two commands: `make demo` and `make test`. Everything here is a thin name for a script or a cargo command;
# after `make setup` the cargo commands work without make.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test driver-cache experiments test-clients test-operators test-together test-loads test-page test-cluster clean check-fresh

# A shell that was open while rustup ran has no cargo in its PATH yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# For instance CARGO_FLAGS=--locked, as .ci/run has it.
CARGO_FLAGS ?=

# $(call step,COMMAND): says the command, runs it, says how long it took.
define step
@printf '\n==> %s\n' '$(1)'; begin=$$(date +%s); $(1); rc=$$?; \
  printf '<== %s s, exit code %s\n' "$$(($$(date +%s) - begin))" "$$rc"; exit $$rc
endef

help:
	@echo 'make demo         install what is missing, build, run four models under the trained policy and two baselines'
	@echo 'make test         install what is missing, then every check: format, lints, inference-only build, tests'
	@echo 'make experiments  run the shipped sweeps and make their reports (QUICK=1: in minutes)'
	@echo 'make test-page    use a report in a headless browser; make test-cluster: a sweep on a local Ray cluster'
	@echo 'make setup        only install what is missing (libtorch 527 MB, onnxruntime 24 MB, drivers by apt)'
	@echo 'make test-clients serve models to the public Python clients of the inference protocol (installs them: 100 MB)'
	@echo 'make test-operators CASES=50: every operator on every GPU processor, so many random cases each (minutes)'
	@echo 'make test-together SECONDS=600: both GPU interfaces in one process for so long, every answer checked, memory flat'
	@echo 'make test-loads LOADS=1000: every processor loads and unloads a model so often, memory flat'
	@echo 'make check-fresh  clone the last commit into a new folder and run make test there, as a newcomer would'
	@echo 'make clean        remove what was built and downloaded: target/, third_party/, runs/'

setup:
	@bash scripts/setup

# `cargo run` and not the binary itself: cargo hands it the libraries' places of .cargo/config.toml.
demo: setup
	$(call step,cargo build --release $(CARGO_FLAGS))
	$(call step,cargo run --release --quiet $(CARGO_FLAGS) -- demo)

# The same random cases each time: what CI refuses, you see too. `cargo test` alone tries new ones and prints the failing input.
test: export PROPTEST_RNG_SEED := 20261122
# Compiled kernels are kept beside the build, so that a second run of the tests is quick.
CACHED := test test-operators test-loads test-together
$(CACHED): export MESA_SHADER_CACHE_DIR := $(TARGET)/driver-cache/mesa
$(CACHED): export POCL_CACHE_DIR := $(TARGET)/driver-cache/pocl
$(CACHED): | driver-cache
driver-cache:
	@mkdir -p "$(TARGET)/driver-cache/mesa" "$(TARGET)/driver-cache/pocl"

# The order: what fails soonest comes first, and the full build comes last, so that target/debug/cosched is the
# full one afterwards. The lints of the inference-only build share all outside crates with the first lints.
test:
	@bash scripts/setup --dev
	$(call step,cargo fmt --all --check)
	$(call step,cargo clippy --workspace --all-targets $(CARGO_FLAGS) -- -D warnings)
	$(call step,cargo clippy --package cosched --no-default-features --all-targets $(CARGO_FLAGS) -- -D warnings)
	$(call step,bash scripts/check-inference-only $(CARGO_FLAGS))
	$(call step,cargo test --workspace --no-fail-fast $(CARGO_FLAGS))

experiments: setup
	$(call step,cargo build --release $(CARGO_FLAGS))
	$(call step,bash scripts/experiments $(TARGET)/release/cosched $(if $(QUICK),quick))

# Both use what `cargo build` made; the browser is Debian's, Ray goes into an environment of its own.
test-page test-cluster: setup
	$(call step,cargo build $(CARGO_FLAGS))
	$(call step,bash scripts/$@ $(TARGET)/debug/cosched)

# More random cases than the tests try each time; a failing one is named by its row and seed. ONLY=conv: rows with that in their name.
test-operators: export CASES ?= 50
test-operators: setup
	$(call step,cargo test --package cosched-executors --test gpu_ops $(CARGO_FLAGS) -- every_operator_agrees)

# A thousand times what the tests do twenty times.
test-loads: export LOADS ?= 1000
test-loads: setup
	$(call step,cargo test --package cosched-executors --test loads $(CARGO_FLAGS) -- --nocapture)

# Ten minutes of what the tests do for five seconds.
test-together: export SECONDS ?= 600
test-together: setup
	$(call step,cargo test --package cosched-executors --test together $(CARGO_FLAGS) -- --nocapture)

test-clients: setup
	@bash scripts/test-clients $(CARGO_FLAGS)

check-fresh:
	@bash scripts/check-fresh

clean:
	rm -rf target third_party runs
