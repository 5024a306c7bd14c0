# The newest supported interpreter makes the environment, unless PYTHON names another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses 4 --max-worker-restart 0
# They need no Temporal server, and take less than a minute together.
SHORT_TESTS := $(addprefix tests/,catalog cli client deployment models process temporal) \
  $(wildcard tests/test_*.py) tests/workflows/test_lifecycle.py \
  tests/provider/test_decisions.py tests/provider/test_slurm_observation.py tests/provider/test_slurm_states.py

.PHONY: demo dev check test test-long format bench bench-peers chaos histories lock screenshots

demo: $(READY)
	$(BIN)/ucloud-orchestrator demo

dev: $(READY)
	$(BIN)/ucloud-orchestrator dev

# The gate before each commit.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for page in docs/generate_*.py; do $(BIN)/python $$page --check || exit 1; done
	$(PYTEST) -q -m "not long" $(SHORT_TESTS)

test: $(READY)
	$(PYTEST) $(PARALLEL) -m "not long"

# Load, faults, Slurm, upgrades, networks, browsers, bad input. `.ci/run` runs it after `test`.
test-long: $(READY)
	$(PYTEST) $(PARALLEL) -m long

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Draws the pictures of docs/operators; look at each before you commit it.
screenshots: $(READY)
	UCLOUD_SCREENSHOTS=docs/images $(PYTEST) tests/end_to_end/test_web_ui.py

# Records each history that is missing (docs/operators/upgrades.md).
histories: $(READY)
	$(PYTEST) tests/workflows/test_replay.py --record-histories

# Writes benchmarks/results; BENCH="--live 100 1000 10000" measures more, and takes longer.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks $(BENCH)

# The same job on DBOS and Prefect, in environments below benchmarks/.peers; PEERS="--rounds 5" measures more.
bench-peers: $(READY)
	$(BIN)/python -m benchmarks.peers $(PEERS)

# A thousand jobs and a hundred faults; CHAOS="--seed 7" repeats the schedule of a run.
chaos: $(READY)
	$(BIN)/python -m tests.chaos $(CHAOS)

# Hashes without addresses; needs uv. All files have the same versions.
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-annotate
lock:
	$(LOCK) --extra all --extra dev pyproject.toml -o requirements.txt
	$(LOCK) --extra deployed -c requirements.txt pyproject.toml -o deploy/requirements.txt
	echo 'matplotlib>=3.10' | $(LOCK) -c requirements.txt - -o benchmarks/requirements.txt
	printf 'dbos>=3.4\nhttpx>=0.28\n' | $(LOCK) - -o benchmarks/peers/requirements-dbos.txt
	echo 'prefect>=3.9' | $(LOCK) - -o benchmarks/peers/requirements-prefect.txt

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)
