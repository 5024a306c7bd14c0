# The interpreter that makes the environment: the newest of those that we support, unless PYTHON names another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo dev test check format lock

demo: $(READY)
	$(BIN)/ucloud-orchestrator demo

dev: $(READY)
	$(BIN)/ucloud-orchestrator dev

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m workflows.lifecycle_document --check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Hashes without addresses; needs uv. The second file is for images: the same versions, without what only tests need.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-annotate pyproject.toml
lock:
	$(LOCK) --extra all --extra dev -o requirements.txt
	$(LOCK) --extra deployed --constraint requirements.txt -o deploy/requirements.txt

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)
