# treadle: `make demo` chats in the terminal, `make test` runs the tests. Both set up .venv first.
.DEFAULT_GOAL := help
.PHONY: help demo serve test test-all test-servers ci-tools lint format docs wheel coverage chaos chaos-cluster chaos-inside soak fuzz bench bench-cluster bench-peers constraints clean
VENV := .venv
BIN := $(VENV)/bin
PURE := src/treadle/domain/*,src/treadle/streaming/*,src/treadle/models/wire/*
# Tests start hundreds of interpreters, which would all compile the sources again.
unexport PYTHONDONTWRITEBYTECODE
export PROMPT := $(value PROMPT)

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 14

$(VENV)/.plain: pyproject.toml constraints.txt scripts/bootstrap
	@scripts/bootstrap ""
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt scripts/bootstrap
	@scripts/bootstrap dev
	@touch $@ $(VENV)/.plain

$(VENV)/.docs: pyproject.toml constraints.txt scripts/bootstrap
	@scripts/bootstrap dev,docs
	@touch $@ $(VENV)/.dev $(VENV)/.plain

demo: $(VENV)/.plain  ## Chat in the terminal; PROMPT="..." answers once
	@$(BIN)/treadle chat $${PROMPT:+-- "$$PROMPT"}

serve: $(VENV)/.plain  ## Serve the demo agent over HTTP
	@$(BIN)/treadle serve demo

test: $(VENV)/.dev  ## Run all the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-all:  ## Run them with every Python from 3.11 to 3.14 that is found
	@scripts/test-all

test-servers: $(VENV)/.dev  ## Test presets against real model servers, which it installs
	@scripts/test-servers

ci-tools:  ## Install what some tests need: Chromium, node, packages of npm, PostgreSQL, Restate
	@scripts/ci-tools

lint: $(VENV)/.dev  ## ruff, pyright strict, import-linter, signatures in the reference
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.signatures --check

format: $(VENV)/.dev  ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

coverage: $(VENV)/.dev  ## Branch coverage; the pure layers must be at 100 %
	@$(BIN)/python -m coverage run -m pytest
	@$(BIN)/python -m coverage report
	@$(BIN)/python -m coverage report --fail-under=100 --include=$(PURE)

docs: $(VENV)/.docs  ## Build the documentation into site/
	@$(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

wheel: $(VENV)/.plain  ## Build a wheel into dist/
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

N := 50
chaos: $(VENV)/.dev  ## Kill a runtime N times (50) and look for losses; SEED=... repeats one
	@$(BIN)/python -m chaos $(N) $${SEED:+--seed $$SEED} $${DATABASE:+--database "$$DATABASE"}

chaos-cluster: $(VENV)/.dev  ## Attack three nodes on PostgreSQL N times (50); ENGINE=restate; SEED=... KINDS=...
	@$(BIN)/python -m chaos.cluster $(N) $${SEED:+--seed $$SEED} $${ENGINE:+--engine $$ENGINE} \
	  $${KINDS:+--kinds $$KINDS} $${REAL:+--real-heartbeat}

chaos-inside: $(VENV)/.dev  ## Attack from inside one process for N rounds (50); SEED=... repeats one
	@$(BIN)/python -m chaos.inside $(N) $${SEED:+--seed $$SEED}

RUNS := 50000
AT_A_TIME := 20
soak: $(VENV)/.dev  ## Wear a server with RUNS (50000) and readers that are cut; SEED=... repeats one
	@$(BIN)/python -m chaos.soak $(RUNS) --at-a-time $(AT_A_TIME) $${SEED:+--seed $$SEED}

SECONDS := 60
fuzz: $(VENV)/.dev  ## Feed mutated streams to decoders, parser and scanner for SECONDS (60)
	@$(BIN)/python -m chaos.fuzz $(SECONDS) $${SEED:+--seed $$SEED}

bench: $(VENV)/.dev  ## Measure, print a table, write benchmarks/results.json
	@$(BIN)/python -m benchmarks

bench-cluster: $(VENV)/.dev  ## Measure several nodes on PostgreSQL: turns, and watching from another node
	@$(BIN)/python -m benchmarks.many_nodes
	@$(BIN)/python -m benchmarks.across_nodes

bench-peers: $(VENV)/.dev  ## Install the frameworks that `make bench` compares with, each in its own venv
	@benchmarks/install-peers

constraints:  ## Move every dependency to its newest version and pin it
	@rm -rf $(VENV) && : > constraints.txt && scripts/bootstrap dev,docs
	@{ echo "# The versions the tests run with. Made by 'make constraints'."; \
	  $(BIN)/pip list --format=freeze | grep -viE '^(treadle|pip|setuptools|wheel)=='; } > constraints.txt

clean:  ## Remove what the commands made
	rm -rf $(VENV) .venv-* site dist .hypothesis .pytest_cache .mypy_cache .ruff_cache
