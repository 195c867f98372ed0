# Aliases for the commands that README.md prints.
.PHONY: reproduce test lab figures lint format lock runlog clean

PYTHON ?= python3
BIN := .venv/bin
EXECUTE = $(BIN)/papermill -k python3 --log-output --log-level INFO --no-progress-bar

# Complete only when this file exists, so an interrupted installation is done again.
INSTALLED := .venv/.installed

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --compile-bytecode -r requirements.lock -e .
	touch $@
