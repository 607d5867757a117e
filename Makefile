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
# How many examples of bad input, and for how many seconds the guided fuzzer goes on afterwards.
EXAMPLES ?= 10000
FUZZ_SECONDS ?= 300

.PHONY: demo test check bench simulate crashes faults kit fuzz audit-dependencies clean

demo: $(VENV)/.runtime
	$(BIN)/dispatcher demo

test: check
	$(BIN)/python -m pytest -n 2

# Every fault of a database, those too that take long.
faults: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/test_database_faults.py

# Every receiver of the integration kit, in every reading, those too that must be compiled.
kit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/test_kit.py tests/test_kit_receivers.py

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

# Bad input by the thousand, then a fuzzer guided by coverage for so many seconds on each of its two targets.
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(EXAMPLES) $(FUZZ_SECONDS)

# Whether a release that we install has a known weakness. It asks the advisories' servers, so it needs the internet.
audit-dependencies: $(VENV)/.audit
	$(BIN)/python -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

# Where there is none for this machine, the rest of `make fuzz` runs, and says so.
$(VENV)/.fuzz: $(VENV)/.dev
	-$(PIP) --editable '.[fuzz]'
	touch $@

$(VENV)/.audit: $(VENV)/.dev
	$(PIP) --editable '.[audit]'
	touch $@

clean:
	rm -rf $(VENV)
