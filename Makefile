# `make demo` and `make test` set up everything they need; they require only Python 3.10+.

PYTHON ?= python3
BIN := .venv/bin
PROJECTS := . $(wildcard plugins/*)
READY := .venv/ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tests start hundreds of interpreters. With this set, each would compile everything that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs pictures bench test retest packaging mutants extended test-newest retest-newest check types chaos helper helper-check dist image release clean

demo: $(READY)
	$(BIN)/sandbox-core demo

# The documentation as a site, in build/site. Broken links and references are errors.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# All tests except those with their own target, which CI runs too. Many wait, so five run on two cores.
test: $(READY)
	$(BIN)/pytest -n 5 --dist loadgroup -m "not packaging and not mutants and not extended"

# Runs the last failed tests again, alone. Failures that are not a test's, such as unexpected skips, remain.
retest: $(READY)
	$(BIN)/pytest -v --last-failed --last-failed-no-failures none

# Builds and installs the distributions.
packaging: $(READY)
	$(BIN)/pytest -n 2 --dist loadgroup -m packaging

# Broken providers, which the provider kit must detect. They mostly wait.
mutants: $(READY)
	$(BIN)/pytest -n 6 -m mutants tests/contract

# Tests that take minutes and seldom differ: the Agents SDK's own tests in workflows, chaos, the examples, and
# what `local` shows in `make test` and other backends repeat: workers that die, and commands under the helper.
extended: $(READY)
	$(BIN)/pytest -n 5 --dist loadgroup -m extended

# Takes the pictures of the documentation, with a real browser.
pictures: $(READY)
	mkdir -p docs/images
	SANDBOX_PICTURES=docs/images $(BIN)/pytest -q tests/test_ui.py

# Compares commands with the peer's and the lower bound: prints a table, and writes the figures as JSON.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py --json benchmarks/figures.json

# Tests that depend on the Agents SDK, with its newest supported version. The OpenAI plugin requires the
# oldest, which .venv has; here it is installed only for the parity tests, which pass with it.
# What is marked `any_sdk` runs with the oldest only: what workers and the engine do by themselves.
NEWEST := .venv-newest
NEWEST_TESTS := tests/sdk tests/parity tests/sessions tests/wire/test_contexts.py tests/test_pages.py \
	plugins/sandbox-local plugins/sandbox-docker plugins/sandbox-daytona
test-newest: $(NEWEST)/ready
	$(NEWEST)/bin/pytest -n 4 --dist loadgroup -m "not extended and not any_sdk" $(NEWEST_TESTS)

# The same as retest, for test-newest. Without the paths it would collect tests of packages that are not installed there.
retest-newest: $(NEWEST)/ready
	$(NEWEST)/bin/pytest -v --last-failed --last-failed-no-failures none $(NEWEST_TESTS)

# Kills workers and servers for half an hour, 15 minutes per backend; prints the seeds and the results.
chaos: $(READY)
	SANDBOX_CHAOS_MINUTES=$${SANDBOX_CHAOS_MINUTES:-15} $(BIN)/pytest -m chaos -s

# Builds the two committed binaries of the helper, with a compiler from a wheel. The bytes are the same
# everywhere: `make helper-check` builds them again and compares.
helper:
	$(MAKE) -C helper binaries

helper-check:
	$(MAKE) -C helper check

# Builds the sdists and wheels of all distributions into dist/, and checks them.
dist: $(READY)
	$(BIN)/python release/dist.py

# Builds an image of a worker, with the providers in PACKAGES, on BASE. docs/deploy.md says how to run it.
PACKAGES ?= sandbox-docker temporalio-openai-agents
image: dist
	$(BIN)/python release/image.py
	docker build --file deploy/Dockerfile --tag sandbox-worker --build-arg PACKAGES="$(PACKAGES)" $(BASE:%=--build-arg BASE=%) \
	    --build-arg VERSION=$$($(BIN)/python -c 'import sandbox_core; print(sandbox_core.__version__)') build/image

# Changes the files of the tree for a release: `make release VERSION=1.2.3`. CONTRIBUTING.md says how to go on.
release: $(READY)
	$(BIN)/python release/prepare.py "$(VERSION)"
	$(BIN)/uv lock --quiet

# The code of the documentation's pages is checked like that of users: in build/blocks, as files.
BLOCKS := build/blocks
check: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --config 'src = ["$(BLOCKS)"]' --select B,E,F,I,RUF,UP --ignore F841,RUF012 $(BLOCKS)
	$(BIN)/ruff format --check $(BLOCKS)
	$(BIN)/lint-imports

empty :=
types: export MYPYPATH := $(subst $(empty) $(empty),:,$(wildcard plugins/*/src plugins/*/tests))
types: $(READY)
	$(BIN)/mypy
	$(BIN)/python tests/documented.py $(BLOCKS)
	MYPYPATH=$$MYPYPATH:$(BLOCKS):tests/packaging/acme-sandbox-echo/src $(BIN)/mypy $(BLOCKS)

$(READY): Makefile $(PROJECTS:%=%/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group dev $(PROJECTS:%=-e %)
	touch $@

# An override takes the place of the plugins' own requirements, with the extras that they name.
$(NEWEST)/ready: Makefile $(PROJECTS:%=%/pyproject.toml) $(READY)
	$(PYTHON) -m venv $(NEWEST)
	echo "openai-agents[daytona,docker]>=0.24,<0.25" > $(NEWEST)/overrides.txt
	$(BIN)/uv pip install --quiet --python $(NEWEST)/bin/python --override $(NEWEST)/overrides.txt \
	    --group dev $(PROJECTS:%=-e %)
	touch $@

clean:
	rm -rf .venv $(NEWEST) build dist
