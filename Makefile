# What a newcomer types. Everything is installed into .venv in this folder; nothing else is touched
# but the weights' cache (~/.cache/ssasr, or $SSASR_CACHE).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install test lint demo serve clean
help:            ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

install: $(VENV)/.installed   ## .venv with the ssasr command, and the default weights
	@$(BIN)/ssasr models pull

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[engine,codecs]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[engine,codecs,test]'
	@touch $@

test: install $(VENV)/.tested lint   ## the whole test suite
	$(BIN)/python -m pytest

lint: $(VENV)/.tested   ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install    ## real speech to words, live, through a server on this machine
	@$(BIN)/python -m ssasr.demo

serve: install   ## the all-in-one server on port 8080
	@$(BIN)/ssasr serve

clean:           ## remove .venv and build products; the weights stay in the cache
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
