# The whole developer interface. `make sweep` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

SECONDS ?= 3600

# Else each of the many processes that tests start would compile raykd anew.
unexport PYTHONDONTWRITEBYTECODE

# Tests of a file run in one process. Those that start Ray run one after another in two of them, which wait
# half of their time, beside one or more for the others.
PYTEST := $(BIN)/python -m pytest
BESIDE := -n 3 --dist loadscope --no-loadscope-reorder

.PHONY: sweep test test-ray test-cluster test-all soak check docs format bench clean

sweep: $(INSTALLED)  ## install and run the quickstart
	$(BIN)/raykd run search_spaces/quickstart.yaml

test: $(INSTALLED)  ## install and run the tests that cover every behaviour once: 10 minutes on two cores
	$(PYTEST) $(BESIDE) -m "not slow and not cluster"

test-ray: $(INSTALLED)  ## the other tests that start Ray: more faults, storages, users, studies
	$(PYTEST) -m "ray and slow and not cluster" tests/test_docs_pages.py tests/test_*.py tests/raykd/[b-z]* tests/raykd/a*

test-cluster: $(INSTALLED)  ## a cluster of hosts on this machine; needs root, sshd, iproute2, rsync, tmux, for one test Slurm
	$(PYTEST) -m cluster tests/cluster/test_cluster.py tests/cluster  # the basis first

test-all: $(INSTALLED)  ## everything, with more examples of each property
	$(PYTEST)

soak: $(INSTALLED)  ## small sweeps under random faults, for SECONDS; the invariants are checked after each
	$(BIN)/python tests/helpers/soak.py --seconds $(SECONDS)

check: $(INSTALLED) docs  ## lint, types, import direction, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:tests/helpers $(BIN)/mypy --implicit-reexport --no-warn-return-any benchmarks/*.py benchmarks/gpu_parts
	$(BIN)/python -m pytest -q tests/test_imports.py

docs: $(INSTALLED)  ## build docs/ into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/lanes.py

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "raykd needs python 3.10 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
