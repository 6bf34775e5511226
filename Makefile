# Each target does all its own set-up: Python 3.11 or newer and git are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test coverage lint check house mutants fuzz clean

demo: $(VENV)/.demo
	@$(BIN)/python -m pulse_nano.demo

# Under five minutes on two cores. What it leaves out as slow, `make coverage` runs.
test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not parity and not browser and not slow" -n 2

# All tests, with the branch coverage of each room held at a floor.
coverage: $(VENV)/.test
	$(BIN)/python -m pytest -m "not parity and not browser" -n 2 --cov --cov-report=
	PYTHONPATH=tests $(BIN)/python -m support.coverage_floors

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/house/test_types.py tests/house/test_containers.py

# What a change must pass before review.
check: lint test

# How the code measures: long files, wide signatures, repeated names. A mirror, not a law.
house: $(VENV)/.test
	@$(BIN)/python -m benchmarks.house

# Ten minutes of small faults in the code: does a test notice each? All of a room's: see the docstring.
mutants: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m support.mutants

# Every fuzzing campaign in full, which takes hours; writes the table of docs/fuzzing.md.
fuzz: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m fuzz

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: pulse-edge needs Python 3.11 or newer, and $(PYTHON) is Python %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install -q -e '.[cpu]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/pip pyproject.toml
	$(BIN)/pip install -q -e '.[test]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/pip install -q -e '.[lint]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
