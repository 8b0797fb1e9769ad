# make demo runs the sample clips, make test all checks and tests. Both create .venv on the first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
N ?= 1000
SEED ?= 0

.PHONY: demo test test-slow coverage fuzz kills docs format clean vos-benchmark

demo: $(STAMP)
	$(BIN)/propagate demo --output demo_output --overwrite

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TESTS)

# long tests; test coverage of the others
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow $(TESTS)

coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered $(TESTS)

# write docs/cli.md from the help texts
docs: $(STAMP)
	$(BIN)/python docs/cli_page.py

# feed damaged inputs of every kind to every reader: make fuzz N=10000 SEED=3; findings go to fuzz_findings
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz -n $(N) --seed $(SEED)

# kill runs at random moments and repeat them: make kills N=200 SEED=3
kills: N = 200
kills: $(STAMP)
	$(BIN)/python -m tests.kills -n $(N) --seed $(SEED)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# install vos-benchmark in its own environment; the tests then compare our scores with it
vos-benchmark: .vos-benchmark/.installed

.vos-benchmark/.installed:
	$(PYTHON) -m venv .vos-benchmark
	.vos-benchmark/bin/python -m pip install --quiet --disable-pip-version-check vos-benchmark==0.1.0
	touch $@

clean:
	rm -rf $(VENV) .vos-benchmark build dist demo_output fuzz_findings .coverage .mypy_cache .pytest_cache .ruff_cache
