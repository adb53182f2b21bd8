# Two commands do it all: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-engines test-clients lint check-python

demo: .venv/demo
	@scripts/demo.sh $(BIN)

test: .venv/dev lint
	@$(BIN)/gristmill models pull smollm2-135m-instruct > /dev/null
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Real llama.cpp and vLLM servers, built once into the user's cache; then `make test` runs these tests too.
test-engines: .venv/dev
	@scripts/build-test-engines.sh $(BIN)
	$(BIN)/python -m pytest -m real_engine tests/engines/openai_compatible tests/engines/vllm tests/engines/ray

# The clients that people use, each in an environment of its own under .clients/; writes docs/reference/clients.md.
# CLIENT=dspy tries one.
test-clients: .venv/dev
	@$(BIN)/gristmill models pull smollm2-135m-instruct > /dev/null
	@PYTHONPATH=tests $(BIN)/python -m clients.run $(addprefix --client ,$(CLIENT))

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
	{ echo "Gristmill needs Python 3.11 or newer: install it, or run 'make PYTHON=/path/to/python3.11'."; exit 1; }

.venv/bin/python: | check-python
	@$(PYTHON) -m venv .venv || \
	{ echo "Python cannot make a virtual environment: on Debian, apt-get install python3-venv."; rm -rf .venv; exit 1; }

.venv/demo: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Gristmill into .venv (a minute or so) ..."
	@$(PIP) -e '.[embedded,score]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Gristmill and its test tools into .venv (a minute or so) ..."
	@$(PIP) -e '.[embedded,llama-cpp,score,bench,otel,postgres,ray,dev]'
	@touch $@
