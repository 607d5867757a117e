# Two commands: `make demo` runs the whole story, `make test` runs everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check faults bench clean

demo: $(VENV)/.runtime
	$(BIN)/dispatcher demo

test: check
	$(BIN)/python -m pytest -n 2

# Every fault of a database, those too that take long.
faults: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/test_database_faults.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ONLY)

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
