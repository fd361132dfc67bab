# Needs python3 (3.11 or newer, with venv) and make; everything else is installed into .venv.
#   make PYTHON=/path/to/python3   another Python
#   make TORCH=torch==2.12.0       another torch (asked for by exact version, pip takes the build that fits)
#   make PIP_FLAGS=--no-index      more options for pip
PYTHON ?=
TORCH ?= torch==2.13.0
PIP_FLAGS ?=
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help setup run test lint clean

help:
	@echo "make run     set up and press the default model (recipe r1-mini), from nothing to a chatting reasoner"
	@echo "make test    set up and run all tests            make test ARGS='tests/text -k mask'"
	@echo "make lint    set up and check style and types"
	@echo "make setup   only set up, in $(VENV)"
	@echo "make clean   remove $(VENV); runs are kept"

setup: $(VENV)/.dev-ready

run: $(VENV)/.ready
	$(BIN)/octavo run r1-mini $(ARGS)

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV)

# torch first and by itself: asked for by exact version, pip takes the CPU build where one is offered.
$(VENV)/.ready: pyproject.toml | $(BIN)/python
	@echo "Installing $(TORCH), then octavo and what it needs"
	@$(PIP) "$(TORCH)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.ready
	@echo "Installing what tests and checks need"
	@$(PIP) -e ".[dev]"
	@touch $@

# The first Python that is new enough and can make environments; else one line that says what to do.
$(BIN)/python:
	@for name in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Making $(VENV) with $$("$$name" --version)"; exec "$$name" -m venv $(VENV); \
	    fi; \
	done; \
	found=$$("$(or $(PYTHON),python3)" --version 2>&1 | head -n 1); \
	echo "octavo needs Python 3.11 or newer with venv and ensurepip (Debian, Ubuntu: apt install python3-venv);" \
	    "$(or $(PYTHON),python3) is: $$found. Another one: make PYTHON=/path/to/python3" >&2; \
	exit 1
