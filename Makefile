# weft: `make demo` chats in the terminal, `make test` runs the tests. Both set up .venv first.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs coverage chaos bench bench-peers constraints clean
VENV := .venv
BIN := $(VENV)/bin
PURE := src/weft/errors.py,src/weft/ids.py,src/weft/items.py,src/weft/usage.py,src/weft/limits.py,src/weft/rules.py,src/weft/schema.py,src/weft/history.py,src/weft/events.py,src/weft/envelope.py,src/weft/inputs.py,src/weft/open_step.py,src/weft/blocks.py,src/weft/block_memory.py,src/weft/block_edits.py,src/weft/block_undo.py,src/weft/block_prompt.py,src/weft/context.py,src/weft/sleep.py,src/weft/state.py,src/weft/decision.py,src/weft/answers.py,src/weft/pins.py,src/weft/compaction/tokens.py,src/weft/compaction/tally.py,src/weft/compaction/cut.py,src/weft/compaction/gauge.py,src/weft/compaction/strategies.py,src/weft/compaction/budget.py,src/weft/compaction/transcript.py,src/weft/compaction/summary.py,src/weft/models/version.py,src/weft/models/windows.py,src/weft/streaming/*,src/weft/models/*_wire.py,src/weft/models/anthropic_*.py,src/weft/models/sse_decoder.py,src/weft/models/failure.py,src/weft/models/retry.py,src/weft/models/secrets.py,src/weft/telemetry/content.py,src/weft/models/sdk_chunks.py,src/weft/mcp/address.py,src/weft/mcp/names.py,src/weft/mcp/restart.py,src/weft/mcp/result.py,src/weft/telemetry/signal.py,src/weft/telemetry/*_spans.py,src/weft/bus/position.py,src/weft/bus/topic.py,src/weft/bus/subscription.py,src/weft/journal/projection.py,src/weft/journal/snapshot.py,src/weft/runtime/fork.py,src/weft/runtime/job_events.py,src/weft/jobs/callbacks.py,src/weft/jobs/change.py,src/weft/jobs/drawing.py,src/weft/jobs/failure.py,src/weft/thread_tree.py,src/weft/jobs/stored.py,src/weft/passages.py,src/weft/archive/words.py,src/weft/archive/period.py,src/weft/archive/page.py,src/weft/archive/fusion.py,src/weft/archive/filters.py,src/weft/archive/new_passages.py,src/weft/archive/row.py
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
	@$(BIN)/weft chat $${PROMPT:+-- "$$PROMPT"}

test: $(VENV)/.dev  ## Run all the tests
	@$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## ruff, pyright strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache

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

N := 50
chaos: $(VENV)/.dev  ## Kill a runtime N times (50) and look for losses; SEED=... repeats one
	@$(BIN)/python -m chaos $(N) $${SEED:+--seed $$SEED}

bench: $(VENV)/.dev  ## Measure, print a table, write benchmarks/results.json
	@$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.dev  ## Install the frameworks that `make bench` compares with, each in its own venv
	@benchmarks/install-peers

constraints:  ## Move every dependency to its newest version and pin it
	@rm -rf $(VENV) && : > constraints.txt && scripts/bootstrap dev,docs
	@{ echo "# The versions the tests run with. Made by 'make constraints'."; \
	  $(BIN)/pip list --format=freeze | grep -viE '^(weft|pip|setuptools|wheel)=='; } > constraints.txt

clean:  ## Remove what the commands made
	rm -rf $(VENV) .venv-* site .hypothesis .pytest_cache .ruff_cache
