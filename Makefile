# Two commands: `make run` and `make test`. Both build .venv on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := pyproject.toml constraints.txt app/__init__.py

export PULLBACK_PORT ?= 8000

.PHONY: run test lint browser openapi constraints clean

run: $(VENV)/.run
	@BIN=$(BIN) ./deploy/run

test: $(VENV)/.dev browser lint
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The Swagger UI test needs a browser; it is skipped, with a reason, where none is and none can be had.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 || \
	echo "No browser is here and none could be installed: the Swagger UI test will be skipped."

openapi: $(VENV)/.run
	$(BIN)/python -m app.front.openapi > openapi/openapi.json

# What is installed now becomes what everybody installs. CPU builds of torch call themselves 2.13.0+cpu.
constraints: $(VENV)/.dev
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamps: what is installed already is not installed again.
$(VENV)/.run: $(PACKAGES) | $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(PACKAGES) | $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run
