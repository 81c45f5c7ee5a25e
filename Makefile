# `make demo` and `make test` set everything up and do their job; Python 3.10+ is all they need.

PYTHON ?= python3
BIN := .venv/bin
PROJECTS := . $(wildcard plugins/*)
READY := .venv/ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tests start hundreds of interpreters. Where this is set, each of them compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo bench test retest packaging mutants extended test-newest check types chaos helper clean

demo: $(READY)
	$(BIN)/sandbox-core demo

# All tests but those that have a target of their own, which CI runs too.
test: check
	$(BIN)/pytest -n 3 --dist loadgroup -m "not packaging and not mutants and not extended"

# Once more what failed last, alone. What fails without a failed test, as an unexpected skip, stays failed.
retest: $(READY)
	$(BIN)/pytest -v --last-failed --last-failed-no-failures none

# Distributions, built and installed.
packaging: $(READY)
	$(BIN)/pytest -n 2 --dist loadgroup -m packaging

# Wrong providers, which the provider kit has to find.
mutants: $(READY)
	$(BIN)/pytest -n 2 -m mutants

# What takes minutes and seldom differs: the Agents SDK's own tests in workflows, chaos in containers,
# and all that the provider kit checks of hosted services.
extended: $(READY)
	$(BIN)/pytest -n 3 --dist loadgroup -m extended

# Commands beside the peer's and the floor: a table, and the figures as JSON.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py --json benchmarks/figures.json

# What depends on the Agents SDK, with the newest that is supported. The OpenAI plugin holds .venv at the
# oldest, and is not made for another one; it is there for the parity tests alone, which pass with it.
NEWEST := .venv-newest
test-newest: $(NEWEST)/ready
	$(NEWEST)/bin/pytest -n 2 --dist loadgroup tests/sdk tests/parity tests/sessions tests/test_pages.py \
	    plugins/sandbox-local plugins/sandbox-docker plugins/sandbox-daytona

# Kills workers and servers for half an hour, a quarter of one for each backend; the seeds and what came of them are printed.
chaos: $(READY)
	SANDBOX_CHAOS_MINUTES=$${SANDBOX_CHAOS_MINUTES:-15} $(BIN)/pytest -m chaos -s

# The two committed binaries under which commands run, with a compiler that comes as a wheel. The same
# bytes everywhere: `make -C helper check` builds them again and compares.
helper:
	$(MAKE) -C helper binaries

check: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

empty :=
types: $(READY)
	MYPYPATH=$(subst $(empty) $(empty),:,$(wildcard plugins/*/src plugins/*/tests)) $(BIN)/mypy

$(READY): Makefile $(PROJECTS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group dev $(PROJECTS:%=-e %)
	touch $@

$(NEWEST)/ready: Makefile $(PROJECTS:%=%/pyproject.toml) $(READY)
	$(PYTHON) -m venv $(NEWEST)
	echo "openai-agents>=0.24,<0.25" > $(NEWEST)/overrides.txt
	$(BIN)/uv pip install --quiet --python $(NEWEST)/bin/python --override $(NEWEST)/overrides.txt \
	    --group dev $(PROJECTS:%=-e %)
	touch $@

clean:
	rm -rf .venv $(NEWEST) build dist
