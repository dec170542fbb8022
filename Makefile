# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/smollm2-tatar
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-all coverage lowest check docs install install-dev alignments benchmarks clean

demo: $(VENV)/.installed  ## set up and run the main job on the embedded default
	$(BIN)/vocabtransfer build --source smollm2 --target tatar --output $(DEMO) --overwrite

test: $(VENV)/.installed-dev  ## set up and pass the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(VENV)/.installed-dev  ## the slow ones too
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow or not slow"

coverage: $(VENV)/.installed-dev  ## the default suite, and which lines it ran: a table, and pages in build/coverage
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report term:skip-covered --cov-report html:build/coverage

lowest:  ## the suite with the oldest versions that pyproject.toml allows, in an environment of its own
	$(PYTHON) .ci/lowest.py build/lowest

check: $(VENV)/.installed-dev  ## style and types; pages say what the results say
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy vocabtransfer cli
	$(BIN)/lint-imports --no-cache
	$(BIN)/python benchmarks/leaderboard/tables.py --check

docs: $(VENV)/.installed-dev  ## the pages of docs/ as a site in build/site; a broken link or an unknown name fails
	$(BIN)/python -m mkdocs build --quiet

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: a bare "torch" would pull the CUDA build.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

alignments: $(VENV)/.installed-dev  ## rebuild data/alignments from packages (Debian and npm clients needed)
	$(BIN)/python -m vocabtransfer.corpora.rebuild

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
