# Two commands: `make demo` runs the whole story, `make test` runs everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# How many simulated worlds to play, from which on, in how many processes.
SEEDS ?= 1000
START ?= 0
JOBS ?= 2
# How many processes to kill.
KILLS ?= 1000

.PHONY: demo test check bench simulate crashes faults clean

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

simulate: $(VENV)/.dev
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --start $(START) --jobs $(JOBS)

# kill -9 at every step, on both stores; takes about a second and a half each.
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
