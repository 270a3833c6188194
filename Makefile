# make demo   install, fetch a small real model, judge it on the bundled suite beside a null model, make the page
# make test   lint, types, tests
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test install lint clean

demo: $(STAMP)
	$(BIN)/lydite evaluate smollm2-135m-instruct random --tasks mini --out runs/demo

# One worker a core with one thread each: tiny models gain nothing from more.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

# torch first and alone: a range that another package asks for would take a build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
