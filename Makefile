# The two commands for everyone: `make run` and `make test`. Both install what they need into
# .venv first; a second call starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help install run test test-peers test-ray check bench format clean

help:
	@echo "make run    start the service with the embedded models"
	@echo "make test   run all tests (14 to 22 minutes on two shared cores)"
	@echo "make check  format, lint and types, as CI runs them"
	@echo "make test-peers  against real llama.cpp and vLLM servers, LiteLLM, LangChain, Node.js, GuardBench,"
	@echo "            inspect_ai and lm-evaluation-harness: the first run downloads 2.5 GB and compiles for"
	@echo "            20 minutes, each takes 8 GB of memory"
	@echo "make test-ray    evaluations on local Ray clusters, with workers and drivers that are killed:"
	@echo "            installs Ray (440 MB), and takes up to 15 minutes on two busy cores"
	@echo "make bench  the short benchmark (a few minutes)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev,clients]'
	@touch $@

install: $(STAMP)

run: $(STAMP)
	$(BIN)/wardgate serve

# Many tests wait for servers and sockets, so three at a time keep two cores busy. In the order
# of the files, so that the slow ones of tests/e2e do not come last
test: $(STAMP)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-peers: $(STAMP)
	$(BIN)/pytest -m peer tests/peers

test-ray: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/pytest -m ray tests/evals/test_ray_run.py

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.engine --short

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
