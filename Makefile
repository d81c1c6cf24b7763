# Two commands: `make run` and `make test`. Both build .venv on first use.
# TORCH_INDEX: the wheel index of PyTorch to take torch from (pytorch.org, "Start locally", names one for each device): with that of
# the CPU build the installation is a tenth of the size. Left empty, pip takes torch from where it takes everything.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CUDA_VENV := .venv-cuda
TORCH_INDEX ?=
WHERE = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PACKAGES := pyproject.toml constraints.txt app/__init__.py

export PULLBACK_PORT ?= 8000

.PHONY: run test sweep test-cuda-build lint side-by-side serial browser openapi map constraints peers clean

run: $(VENV)/.run
	@BIN=$(BIN) ./deploy/run

# Most tests side by side, in one process more than there are cores (tests/conftest.py); then, one after the other and alone, the few that
# compare CPU times, fill queues, or soak. Of two cores the first leave an eighth unused, and half while one process compiles what all
# import: 120 s of CPU time in all, of which mypy takes what it needs.
# A torch of one thread in each, as workers have it: on two cores two of many threads take turns at nothing.
# The ten slowest are listed at the end.
test: export OMP_NUM_THREADS = 1
test:
	@$(MAKE) --jobs=2 --no-print-directory $(VENV)/.dev browser
	@$(MAKE) --jobs=2 --no-print-directory side-by-side lint
	@$(MAKE) --no-print-directory serial

# Of many examples of one demand `make test` asks a fixed share (tests/share.py); this asks all of them. About half as long again.
sweep: export OMP_NUM_THREADS = 1
sweep:
	@$(MAKE) --no-print-directory side-by-side serial WHOLE=--whole

serial: $(VENV)/.dev
	$(BIN)/pytest -m serial $(WHOLE)

side-by-side: $(VENV)/.dev
	$(BIN)/pytest -m 'not serial' --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=10 $(WHOLE)

# The build of torch that carries CUDA, in an environment of its own, on a machine that need not have a GPU: start, query, kill,
# explain. Some gigabytes, so it is no part of `make test`.
test-cuda-build: $(CUDA_VENV)/.test
	@$(CUDA_VENV)/bin/python -c 'import torch; print("torch", torch.__version__, "with CUDA", torch.version.cuda, \
	  "and", torch.cuda.device_count(), "GPUs"); raise SystemExit(torch.version.cuda is None)'
	$(CUDA_VENV)/bin/pytest tests/pool/test_forkserver.py tests/pool/test_end.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	nice -n 19 $(BIN)/mypy

# The Swagger UI test needs a browser; it is skipped, with a reason, where none is and none can be had.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 || \
	echo "No browser is here and none could be installed: the Swagger UI test will be skipped."

openapi: $(VENV)/.run
	$(BIN)/python -m app.front.openapi > openapi/openapi.json

# The table of rooms and modules in docs/architecture.md, out of their docstrings.
map: $(VENV)/.dev
	$(BIN)/python -m tests.room_map

# Pullback beside other servers, in one run, with the same queries: PEERS names a folder with `setup.sh` and `run.py` (its README says
# what they need), which may stand beside this one; ARGUMENTS go to run.py.
PEERS ?= $(wildcard ../shared/peers)
peers: $(VENV)/.run
	@[ -n "$(PEERS)" ] && [ -x "$(PEERS)/run.py" ] || { echo "PEERS names no folder with run.py: PEERS=folder make peers"; exit 1; }
	PULLBACK_SERVE="$(CURDIR)/$(BIN)/pullback serve --host 127.0.0.1 --port {port}" "$(PEERS)/run.py" $(ARGUMENTS)

# What is installed now becomes what everybody installs. CPU builds of torch call themselves 2.13.0+cpu.
constraints: $(VENV)/.dev
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(CUDA_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment in the target's folder, made by the same Python.
%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $*

# Said once, before a download that takes minutes.
define say_size
@echo; \
echo "Installing PyTorch and what else is needed into $(@D), this once. PyTorch's build with CUDA, which is the ordinary one on x86 Linux,"; \
echo "is 2.8 GB to download and 5 GB on disk: 1 minute at 400 Mbit/s, 8 at 50. The CPU build is 0.3 GB and 1.2: README, \"Two"; \
echo "commands\", says how to have it."; \
echo
endef

# Stamps: what is installed already is not installed again.
$(VENV)/.run: $(PACKAGES) | $(BIN)/python
	$(say_size)
	$(BIN)/pip install -c constraints.txt $(WHERE) -e .
	@touch $@

# Without bytecode: of these 12,000 files a quarter is ever imported, and compiled then, once.
unexport PYTHONDONTWRITEBYTECODE
$(VENV)/.dev: $(PACKAGES) | $(BIN)/python
	$(say_size)
	$(BIN)/pip install --no-compile -c constraints.txt $(WHERE) -e '.[dev]'
	@touch $@ $(VENV)/.run

# `===` compares the whole version, so that a CPU build (2.13.0+cpu), where pip knows of one, is not taken for it.
$(CUDA_VENV)/.test: $(PACKAGES) | $(CUDA_VENV)/bin/python
	$(say_size)
	$(CUDA_VENV)/bin/pip install -c constraints.txt "$$(sed -n 's/^torch==/torch===/p' constraints.txt)" -e . pytest pytest-timeout
	@touch $@
