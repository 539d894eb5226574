# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
STAMP := $(VENV)/.stamp
INPUTS := requirements/uv.txt requirements/dev.txt packages/node/pyproject.toml packages/sdk/pyproject.toml

.PHONY: setup check test lock fix
setup: $(STAMP)

$(STAMP): $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e packages/sdk -e packages/node
	touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate requirements/uv.in -o requirements/uv.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-emit-package toft-sdk requirements/dev.in packages/node/pyproject.toml packages/sdk/pyproject.toml -o requirements/dev.txt

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy packages/node/src packages/sdk/src
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit tests/docs

test: check
	$(BIN)/python -m pytest tests/contract tests/system
