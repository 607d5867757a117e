# Two commands: `make demo` runs the whole story, `make test` runs everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check bench crashes clean

demo: $(VENV)/.runtime
	$(BIN)/dispatcher demo

test: check
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ONLY)

# kill -9 at every step, on both stores; takes about a second and a half each.
KILLS ?= 1000
crashes: $(VENV)/.dev
	$(BIN)/python -m tests.crashes --kills $(KILLS) --out docs/reliability.json

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
