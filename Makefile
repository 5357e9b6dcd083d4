SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STORE ?= directory
SEEDS ?= 20000
SIM_SEEDS ?= 1850
FUZZ_SECONDS ?= 120
SCHEDULES ?= 50
CRASH_MATRIX ?= each
SWITCHES ?= 200

.PHONY: help setup protos protos-check fix verify test test-fast test-long sim sim-ci fuzz demo embed-demo bench crash \
	fencing follow damage strategies crash-matrix switches planted clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed ## Create .venv and install everything the project needs

PROTOS := $(shell find protos -name '*.proto')

protos: setup ## Regenerate the gRPC stubs in brainy/api
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. \
		--mypy_out=. --mypy_grpc_out=. $(PROTOS:protos/%=%)

protos-check: protos ## Fail when the checked-in stubs differ from protos/
	git diff --exit-code --stat -- brainy/api
	@test -z "$$(git status --porcelain -- brainy/api)" || { git status --porcelain -- brainy/api; exit 1; }

fix: setup ## Format and mend what can be mended
	$(VENV)/bin/ruff check --fix --quiet .
	$(VENV)/bin/ruff format --quiet .
	$(VENV)/bin/buf format -w protos

verify: setup ## Everything that reads the code without running it
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/buf lint protos
	$(VENV)/bin/buf format --diff --exit-code protos
	if git rev-parse --verify -q HEAD~1 >/dev/null && git ls-tree HEAD~1 --name-only | grep -qx protos; then \
		$(VENV)/bin/buf breaking protos --against '.git#ref=HEAD~1,subdir=protos'; fi
	$(MAKE) --no-print-directory protos-check

test: setup ## The test suite, but for what test-long runs
	$(VENV)/bin/pytest -m 'not long' -n 2 --dist loadfile

test-long: setup ## Locks, hand-over and coordinators with real processes whose timing matters; wants an idle machine
	$(VENV)/bin/pytest -m long --timeout 600

test-fast: setup ## Without the tests marked slow or long
	$(VENV)/bin/pytest -m 'not slow and not long' -n 2

sim: setup ## Simulations on all cores: SEEDS of the first level, a tenth of them of the whole cluster
	PYTHONHASHSEED=0 $(PY) -m tests.sim --seeds $(SEEDS)

sim-ci: setup ## SIM_SEEDS simulations and a tenth of them of the whole cluster, as tests
	SIM_SEEDS=$(SIM_SEEDS) $(VENV)/bin/pytest -n 2 tests/sim

fuzz: setup ## Damaged buckets at random for FUZZ_SECONDS: nothing crashes, nothing is lost without a word
	$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS)

demo: setup ## A Brainy bucket served and upgraded under load, with a node killed midway (STORE=directory|s3)
	$(VENV)/bin/brainy demo --store $(STORE)

bench: setup ## Speed, memory and store calls against their bars (needs the recorded buckets)
	$(VENV)/bin/python -m tests.bench

embed-demo: setup ## 5,000 texts imported with the offline model, killed on the way and resumed; paraphrases found
	$(VENV)/bin/pytest -m long --timeout 1800 tests/e2e/test_sparse_import.py -s

crash: setup ## Twenty upgrades, each with a SIGKILL at a random moment of a random process
	CRASH_RUNS=20 $(VENV)/bin/pytest -m crash --timeout 3000 tests/e2e/test_crashes.py -s

fencing: setup ## 100 lock holders each on S3 and Redis, stopped for longer than their lease and woken again
	RUNS=100 $(VENV)/bin/pytest --timeout 1800 tests/e2e/test_paused_holder.py -s

follow: setup ## Fifty schedules of Brainy processes writing a SeaweedFS bucket that is followed (SCHEDULES)
	FOLLOW_SCHEDULES=$(SCHEDULES) $(VENV)/bin/pytest --timeout 1800 tests/integration/test_follow.py -k object_server -s

damage: setup ## 1,000 randomly damaged backups, each of which must be refused before anything is changed
	DAMAGE_RUNS=1000 $(VENV)/bin/pytest --timeout 1200 tests/unit/test_backup_damage.py -s

strategies: setup ## Every strategy, from a tree and a generation, one way and there and back, on SeaweedFS under load
	$(VENV)/bin/pytest -m long --timeout 900 tests/e2e/test_matrix.py -s

crash-matrix: setup ## Every strategy with processes killed at every step (CRASH_MATRIX=full: each step and victim by itself)
	CRASH_MATRIX=$(CRASH_MATRIX) $(VENV)/bin/pytest -m long --timeout 1200 tests/e2e/test_matrix_crashes.py -s

switches: setup ## 200 blue-green switches and five cycles there and back under load: pauses, failures, digests (SWITCHES)
	$(PY) -m tests.bench.switches --switches $(SWITCHES)

planted: setup ## Differences planted into running clusters that are written all the time, and ten clean runs of a migration
	$(VENV)/bin/pytest -m long --timeout 900 tests/e2e/test_planted.py -s

clean: ## Remove what can be made again
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
