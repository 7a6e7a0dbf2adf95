# Everything runs from a fresh clone with Python 3.11+ and make: the first target that needs them installs
# uv and, with it, exactly what uv.lock pins.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mtft
UV_VERSION := 0.13.8
CHAOS_KILLS ?= 200
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -q
# A file's tests share what they build, so one worker runs them all; files start in the order given.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Beside it runs what waits for API servers and pods much of the time; this takes what they leave.
BESIDE := nice -n 5

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Start-up is mostly loading modules: let Python keep what it compiled.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPATH := $(CURDIR)

# The parts of a test run go side by side: one that waits much, one that takes the cores it leaves, and one that fills the
# ends of both.
ifneq (,$(filter test e2e,$(MAKECMDGOALS)))
MAKEFLAGS += -j3 --output-sync=target
endif
ifeq (3,$(words $(filter test chaos e2e,$(MAKECMDGOALS))))
e2e-local: | test-quick
e2e-cluster: | test-cluster
e2e-real: | chaos
endif

.DEFAULT_GOAL := help
.PHONY: help demo real real-short test test-quick test-cluster chaos e2e e2e-local e2e-cluster e2e-real tools images cluster-up cluster-down check format generate bench setup clean

help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready ## Install everything into .venv

demo: .venv/.ready ## Train a small base, fine-tune it on another sub-domain, show the gain (5 minutes)
	@$(PYTHON) -m demo

real: .venv/.ready ## Fine-tune stand-ins of all five models on real sentences (MTFT_REAL_DATA)
	@$(PYTHON) -m benchmarks.real

real-short e2e-real: .venv/.ready
	@$(BESIDE) $(PYTHON) -m benchmarks.real --short

test: check tools test-quick test-cluster ## Format, lint, types, generated files, then every test but the end-to-end ones

test-quick: .venv/.ready | check tools
	$(BESIDE) $(PYTEST) $(PARALLEL) tests/trainer tests/unit tests/chart

test-cluster: .venv/.ready | check tools
	$(PYTEST) tests/cluster

# Pods are disturbed from 20 on.
chaos: .venv/.ready | tools $(shell [ "$(CHAOS_KILLS)" -lt 20 ] || echo images) ## Kill, cut, fill and delete by the hundred, count what is lost (two hours; CHAOS_KILLS=8: minutes)
	@$(BESIDE) $(PYTHON) -m chaos --kills $(CHAOS_KILLS)

e2e: e2e-local e2e-cluster e2e-real ## The README's own commands here, jobs in real pods, and the short real run

e2e-local: .venv/.ready | images
	$(BESIDE) $(PYTEST) $(PARALLEL) tests/e2e --ignore=tests/e2e/cluster

e2e-cluster: .venv/.ready | tools images
	$(PYTEST) tests/e2e/cluster

images: .venv/.ready ## Build mtft's image and what it stands on, once (10 minutes)
	@$(PYTHON) -m tests.cluster.images

tools: .venv/.ready ## Build the test cluster's programs, once (15 minutes), and install its Debian packages
	@$(PYTHON) -m tests.cluster tools

cluster-up: .venv/.ready ## Start a Kubernetes with the training operator here and print its kubeconfig
	@$(PYTHON) -m tests.cluster up

cluster-down: .venv/.ready ## End it and remove its data
	@$(PYTHON) -m tests.cluster down

check: .venv/.ready ## Format, lint, types, import rules, stale generated files
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m mtft.generated --check
	$(PYTHON) -m tests.goldens --check

format: .venv/.ready ## Format the code
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

generate: .venv/.ready ## Write reference, JSON Schema, chart files, golden manifests and examples again
	$(PYTHON) -m mtft.generated
	$(PYTHON) -m tests.goldens

bench: .venv/.ready ## Measure: start-up, padding, throughput beside the stock trainer, memory of the data path
	$(PYTHON) -m benchmarks

clean: ## Remove what demo and real wrote
	rm -rf build

.venv/.ready: pyproject.toml uv.lock $(UV)
	@$(UV) sync --locked --all-extras --quiet --compile-bytecode
	@touch $@

$(UV):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mtft needs Python 3.11 or later; python3 is $$(python3 --version 2>&1)"; exit 2; }
	@python3 -m venv $(CACHE)/uv-$(UV_VERSION) || \
	  { echo "python3 cannot make virtual environments: on Debian, apt-get install python3-venv"; exit 2; }
	@$(CACHE)/uv-$(UV_VERSION)/bin/python -m pip install --quiet uv==$(UV_VERSION)
