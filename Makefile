# Each target sets up its own virtual environment first, in .venv, from nothing but Python 3.11+ and pip.
# Another Python: make PYTHON=/path/to/python3.12 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
JOBS ?= 2

# The first of these that is 3.11 or newer. Looked for only when the environment is made.
FIND_PYTHON = for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done

# durable_rules is C: it needs a compiler and Python's headers.
CAN_BUILD = printf '\043include <Python.h>\n' | \
	$(CC) -E -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')" - >/dev/null 2>&1

# It is built before the rest, so that pip finds it there and does not build it again. Its setup overwrites CFLAGS, so
# the optimiser and the name that Python 3.13 dropped go into CC; a wheel from pip's cache may have been built without
# them.
DURABLE_RULES = $(shell sed -n 's/^    "\(durable_rules.*\)",$$/\1/p' pyproject.toml)
BUILD_DURABLE_RULES = CC="$(CC) -O2 -DPyEval_CallObject=PyObject_CallObject" $(BIN)/python -m pip install --quiet \
	--no-cache-dir --no-binary durable_rules "$(DURABLE_RULES)"

# All that pyproject.toml names but what needs the compiler, and what matching is compared with.
ALL_BUT_DURABLE_RULES = import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	extras = project["optional-dependencies"]; del extras["bench"]; \
	named = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]; \
	print(*(each for each in named if not each.startswith(("arbiter[", "durable_rules"))), sep="\n")

.DEFAULT_GOAL := help
.PHONY: help setup demo tutorial serve test lint bench bench-profiles soak faults audit clean

help: ## say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## make or renew .venv

$(STAMP): pyproject.toml
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo "no Python 3.11 or newer found; try: make PYTHON=/path/to/python" >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then \
		$$python -m venv $(VENV) 2>/dev/null || { \
			rm -rf $(VENV) && $$python -m venv --without-pip $(VENV) && \
			$$python -m pip --python $(BIN)/python install --quiet pip; }; \
	fi
	@if $(CAN_BUILD); then \
		$(BUILD_DURABLE_RULES) && $(BIN)/python -m pip install --quiet -e '.[all,dev]'; \
	else \
		echo "no C compiler with Python headers: durable_rules is left out, and triggers do not run" && \
		$(BIN)/python -c '$(ALL_BUT_DURABLE_RULES)' >$(VENV)/requirements.txt && \
		$(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt && \
		$(BIN)/python -m pip install --quiet --no-deps -e .; \
	fi
	@touch $@

demo: $(STAMP) ## the whole story, on real purchases, in under three minutes
	$(BIN)/arbiter demo

tutorial: $(STAMP) ## docs/tutorial.md as it is written: each command, and what it says
	$(BIN)/python -m pytest -n 0 -q -s tests/test_docs.py -k tutorial.md

serve: $(STAMP) ## run the server on the example rules and models
	$(BIN)/arbiter serve

test: lint ## lint, types and the test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP) ## ruff, mypy, the protos and their stubs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check

bench: $(BENCH_STAMP) ## measure, also what we are compared with (durable_rules needs a C compiler)
	$(BIN)/python -m benchmarks

bench-profiles: $(STAMP) ## ask a store of ten million profiles (some 21 GB of disk, some minutes)
	$(BIN)/python -m benchmarks profiles_10m

$(BENCH_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet -e '.[bench]'
	@touch $@

soak: $(STAMP) ## half an hour of traffic with all that goes wrong, every answer checked
	$(BIN)/python -m benchmarks.soak --minutes 30

faults: $(STAMP) ## kill -9 and power cuts on the store alone, thousands of them, torn files, and kills of triggers: ROUNDS=2000, WAYS=8, TORN=600, KILLS=500
	PYTHONPATH=engine:. $(BIN)/python -m tests.faults.kills $(or $(ROUNDS),2000)
	POWER_CUTS=$(or $(WAYS),8) $(BIN)/python -m pytest -q tests/faults/test_power_cuts.py
	TORN_FILES=$(or $(TORN),600) $(BIN)/python -m pytest -q tests/faults/test_torn_files.py
	PYTHONPATH=engine:. $(BIN)/python -m tests.triggers.kills $(or $(KILLS),500)

audit: $(STAMP) ## ask whether dependencies have known holes, and say so when nobody answers
	@$(BIN)/python -m pip install --quiet 'pip-audit>=2.10,<3'
	@$(BIN)/python .ci/audit.py

clean: ## remove what make made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find engine proto tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
