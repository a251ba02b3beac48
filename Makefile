# `make demo` shows it, `make quick` checks a change, `make test` checks all. Each does its own set-up, from Python 3.11
# and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the tests. Three take as long as two on two cores, for vLLM's wait by spinning.
WORKERS ?= 2
PRODUCT := adapters router profiling serving cli
PYTEST = $(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# glibc would give every temporary back to the system; keeping them makes CPU runs 1.2 to 2 times faster.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000
export MALLOC_TOP_PAD_ ?= 268435456

# Installing compiles nothing, so what is imported first is compiled then, and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test check lint typed unit format install system examples benchmarks routing clean

# make demo ARGS="--base HuggingFaceTB/SmolLM2-360M-Instruct"
demo: install
	$(BIN)/traitroute demo $(ARGS)

# Which router chooses best, from committed outcomes. make routing ARGS="--json out.json"
routing: install
	$(BIN)/python benchmarks/routing.py $(ARGS)

# Everything: real models, vLLM, a browser and PostgreSQL too. make test ARGS="tests/router -x"
test: check system benchmarks
	$(PYTEST) $(ARGS)

# What takes moments: lint, the product's types, and tests without those. Side by side, so their lines may mix.
quick: install types
	@$(MAKE) --no-print-directory -j2 lint typed TYPED="$(PRODUCT)" unit

check: lint typed examples
	$(BIN)/basedpyright --level error --pythonpath .venv-agents/bin/python examples

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

typed: install types
	$(BIN)/basedpyright --level error $(TYPED)

unit: install
	$(PYTEST) -q -m "not slow" $(ARGS)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(BIN)/python
	$(BIN)/python scripts/install.py

# The browser and the database server that some tests drive.
system: install
	$(BIN)/python scripts/system_packages.py

# The agents' libraries that the examples need, in an environment of their own.
examples: install
	$(BIN)/python scripts/install.py agents

# What benchmarks compare with, in an environment of its own: .venv-benchmarks/bin/python benchmarks/latency.py
benchmarks: install
	$(BIN)/python scripts/install.py benchmarks

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The type checker finds `traitroute.*` here: the repository itself is the package.
.PHONY: types
types:
	@mkdir -p build/types && ln -sfn ../.. build/types/traitroute

clean:
	rm -rf $(VENV) .venv-agents .venv-benchmarks build dist runs *.egg-info
