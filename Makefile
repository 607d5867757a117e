# Two commands: `make demo` runs the whole story, `make test` runs everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Where a machine says that bytecode is not to be kept, each process of the tests would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# How many simulated worlds to play, from which on, in how many processes.
SEEDS ?= 1000
START ?= 0
JOBS ?= 2
# How many processes to kill.
KILLS ?= 1000
# How many examples of bad input, and for how many seconds the guided fuzzer goes on afterwards.
EXAMPLES ?= 10000
FUZZ_SECONDS ?= 300

# The order of `make shuffled`; another one each time by default.
SEED ?=

# Which of the pure rooms to plant faults in, like `ground/money`; all of them by default.
ROOMS ?=

.PHONY: demo test suite shuffled long check bench simulate crashes faults kit package pythons coverage fuzz mutate audit-dependencies clean

demo: $(VENV)/.runtime
	$(BIN)/dispatcher demo

# Both at the same time: types are the work of one process, and the tests leave the processors something to do.
test: $(VENV)/.dev
	$(MAKE) --no-print-directory --jobs 2 check suite

suite: $(VENV)/.dev
	$(BIN)/python -m pytest -n 4

# The same tests in an order by chance; each run tells its seed, and `make shuffled SEED=…` has that order again.
shuffled: $(VENV)/.dev
	$(BIN)/python -m pytest -n 4 -p randomly --randomly-dont-reset-seed $(if $(SEED),--randomly-seed=$(SEED))

# The same tests with many more examples, and larger files.
long: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m slow tests/test_line.py tests/test_store.py tests/test_pause.py tests/test_roster.py tests/test_cli.py \
		tests/test_openapi.py

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

# What is handed out, in dist/; before, both are looked into, installed where there is nothing else, and the demo is played
# there. It installs from the registry of packages, so it needs one.
package: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow" -rs tests/test_packaging.py
	rm -rf dist
	$(BIN)/python -m build

# The ordinary suite on each Python of ours that is on this machine; `make pythons ONLY=tests/test_seal.py` a part of it.
pythons: $(VENV)/.dev
	$(BIN)/python -m tests.pythons $(ONLY)

# How much of the package the ordinary suite walks through, its processes included.
coverage: $(VENV)/.dev
	rm -rf .coverage && mkdir .coverage
	$(BIN)/coverage run -m pytest -n 2
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

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

# Faults planted one at a time in the pure rooms, and whether their tests see each: docs/mutation.md.
mutate: $(VENV)/.mutate
	nice -n 10 $(BIN)/python -m tests.mutate $(JOBS) $(ROOMS)

# Whether a release that we install has a known weakness. It asks the advisories' servers, so it needs the internet.
audit-dependencies: $(VENV)/.audit
	$(BIN)/python -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip

$(VENV)/.runtime: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a minute or two, without a word"
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing what the tests need: another minute or two"
	$(PIP) --editable '.[dev]'
	touch $@

# Where there is none for this machine, the rest of `make fuzz` runs, and says so.
$(VENV)/.fuzz: $(VENV)/.dev
	-$(PIP) --editable '.[fuzz]'
	touch $@

$(VENV)/.mutate: $(VENV)/.dev
	$(PIP) --editable '.[mutate]'
	touch $@

$(VENV)/.audit: $(VENV)/.dev
	$(PIP) --editable '.[audit]'
	touch $@

clean:
	rm -rf $(VENV)
