# Two commands do everything on a fresh machine: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
# uv brings its own authorities; where the machine has some, such as a company's proxy, those are trusted.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif
STAMP := $(VENV)/.stamp
INPUTS := tools/setup.sh requirements/uv.txt requirements/dev.txt packages/node/pyproject.toml packages/sdk/pyproject.toml
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: setup demo check test lives bench fix lock clean
setup: $(STAMP)

$(STAMP): $(INPUTS)
	PYTHON="$(PYTHON)" sh tools/setup.sh
	touch $@

# The same with an accident in the middle: make demo ARGS=--pull-the-plug
demo: setup
	$(BIN)/toft demo $(ARGS)

check: setup
	$(BIN)/ruff format --quiet --check . || { echo 'run: make fix'; exit 1; }
	$(BIN)/ruff check --quiet --output-format concise .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest tests/unit tests/docs
	$(BIN)/python -m pytest tests/simulation -m 'not long'

test: check
	$(BIN)/python -m pytest $(wildcard tests/contract tests/system)
	$(BIN)/python -m pytest tests/simulation -m long

# Ten thousand lives of a node's configuration, each with its own kills, power cuts, clocks and rotten files.
lives: setup
	TOFT_SEQUENCES=10000 $(BIN)/python -m pytest tests/simulation/test_generation_lives.py --timeout 1800

bench: setup
	$(BIN)/toft bench runtime
	$(BIN)/toft bench jobs
	$(BIN)/toft bench api
	$(BIN)/toft bench central

fix: setup
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix --output-format concise . || true
	$(BIN)/ruff format --quiet .
	$(BIN)/python tools/decision_index.py
	$(BIN)/python tools/generate_docs.py
	$(BIN)/python tools/docs_index.py

lock: setup
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) --no-emit-package toft-sdk -c requirements/uv.txt requirements/dev.in \
		packages/node/pyproject.toml packages/sdk/pyproject.toml -o requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
