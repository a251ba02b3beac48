# Two commands: `make demo` and `make test`. Each does its own set-up, from Python 3.11 and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# glibc would give every temporary back to the system; keeping them makes CPU runs 1.2 to 2 times faster.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000
export MALLOC_TOP_PAD_ ?= 268435456

.PHONY: demo test check format install system examples clean

# make demo ARGS="--base HuggingFaceTB/SmolLM2-360M-Instruct"
demo: install
	$(BIN)/traitroute demo $(ARGS)

test: check system
	$(BIN)/pytest $(ARGS)

check: install types examples
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error
	$(BIN)/basedpyright --level error --pythonpath .venv-agents/bin/python examples

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
	$(BIN)/python scripts/install_examples.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The type checker finds `traitroute.*` here: the repository itself is the package.
.PHONY: types
types:
	@mkdir -p build/types && ln -sfn ../.. build/types/traitroute

clean:
	rm -rf $(VENV) .venv-agents build dist runs *.egg-info
