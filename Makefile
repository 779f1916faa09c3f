# What a newcomer types. Everything is installed into .venv in this folder; nothing else is touched
# but the weights' cache (~/.cache/ssasr, or $SSASR_CACHE).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

FRAMEWORKS := $(VENV)/frameworks

.PHONY: help install test avx2 browser lint demo serve docs screenshots clean
help:            ## show this list
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 12

install: $(VENV)/.installed   ## .venv with the ssasr command, and the default weights
	@$(BIN)/ssasr models pull

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[engine,chinese,codecs]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[engine,chinese,codecs,test]'
	@touch $@

# LiveKit Agents and Pipecat pin other versions of our libraries, so they have their own environment.
$(VENV)/.frameworks: examples/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check install -r $<
	@touch $@

# What the examples need (an SDK), and what the tests of the demo page do (axe-core).
NODE := examples/node_modules/.installed tests/node_modules/.installed

$(NODE): %/node_modules/.installed: %/package.json | browser
	cd $* && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

browser:         ## Chromium, Node, Prometheus and envsubst for the tests, from Debian, unless they are there
	@missing=; \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || command -v google-chrome >/dev/null || missing="$$missing chromium"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v promtool >/dev/null || missing="$$missing prometheus"; \
	command -v envsubst >/dev/null || missing="$$missing gettext-base"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
	  echo "The tests need:$$missing. Install with: sudo apt-get install$$missing" >&2; exit 1; \
	fi

test: install browser $(VENV)/.tested $(VENV)/.frameworks $(NODE) lint   ## the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Libraries choose instructions by what these say: torch, oneDNN (by its old name and its new one),
# FBGEMM, MKL, numba. Set them for any command of ssasr's to see what it does on such a processor.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2 \
  FBGEMM_ENABLE_INSTRUCTIONS=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 NUMBA_CPU_NAME=haswell

avx2: install $(VENV)/.tested   ## the engines' tests as on a processor with AVX2 and no more
	$(AVX2) $(BIN)/python -m pytest -n 2 --dist loadfile tests/engine tests/contracts

lint: $(VENV)/.tested   ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install    ## real speech to words, live, through a server on this machine
	@$(BIN)/python -m ssasr.client.demo

serve: install   ## the all-in-one server on port 8080
	@$(BIN)/ssasr serve

docs: $(VENV)/.tested   ## the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

screenshots: install browser $(VENV)/.tested   ## renew the pictures of the demo page in docs/images
	$(BIN)/python -m tests.page.pictures docs/images

clean:           ## remove .venv and build products; the weights stay in the cache
	rm -rf $(VENV) build dist site examples/node_modules tests/node_modules *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
