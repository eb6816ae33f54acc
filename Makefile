# One vocabulary for people, hooks and CI; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help install dev run stop test test-slow check bench soak drill docs lock \
	compose compose-update compose-secrets compose-test compose-drill
SHELL := /bin/sh
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME

BIN := .venv/bin
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	"$$p" -c '$(FITS)' 2>/dev/null && echo "$$p" && exit; done; echo python3)
# Three at a time, also on two processors: a third of the time they wait for disks and processes. A
# file's tests share what they have set up. A worker that died is not replaced: with another one in
# its place pytest-xdist waits for ever.
BESIDE = -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
FLAGS = $(if $(filter-out 0,$(ONCE)),--once) $(if $(USE_CASE),--use-case $(USE_CASE)) $(if $(DAYS),--days $(DAYS))

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo "  settings:      EVERGREEN_HOME, EVERGREEN_AIRFLOW_PORT, EVERGREEN_MLFLOW_PORT, EVERGREEN_NODE_PORT, PYTHON"

install: ## make .venv with exactly what requirements.txt locks (Python 3.11-3.13)
	@$(PYTHON) -I include/installation/bootstrap.py

dev:
	@$(PYTHON) -I include/installation/bootstrap.py --dev

run: install ## start everything, run the newest day, answer a request (ONCE=1, USE_CASE=name, DAYS=n)
	@exec $(BIN)/evergreen up $(FLAGS)

stop: ## stop what `make run` has started in this home folder
	@exec $(BIN)/evergreen stop

test: dev ## run the tests, all but those that `make test-slow` runs
	@$(BIN)/python -m pytest tests -m "not slow and not engine" $(BESIDE) $(ARGS)

test-slow: dev ## run the long tests: simulations, real data sets, long histories, kills in the middle
	@$(BIN)/python -m pytest tests -m "slow and not engine and not drill" $(BESIDE) $(ARGS)

check: dev ## no half-made merge, ruff, mypy strict, import rule, DAG policy, whether generated docs are current
	@! git grep -nE '^\s*(<{7}|>{7}) '
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/dags/test_policy.py
	@$(BIN)/python -m docs.generate --check

bench: dev ## measure the stages against the bare libraries, and the orchestration
	@$(BIN)/python -m tests.benchmarks $(ARGS)

soak: dev ## load a node and kill it at random; does anything grow? (MINUTES=60)
	@$(BIN)/python -m tests.soak $(or $(MINUTES),60)

drill: dev ## break a release in all ways that its rules name, on a running system (CASES="slow,nan", SHORT=1)
	@$(BIN)/python -m tests.drill $(if $(filter-out 0,$(SHORT)),--short) $(if $(CASES),--cases "$(CASES)") $(ARGS)

docs: dev ## write what docs/ has from the code anew: reference pages, picture of the rooms
	@$(BIN)/python -m docs.generate

compose: ## start everything in containers, run the newest day, answer (USE_CASE=name, DAYS=n)
	@USE_CASE=$(USE_CASE) DAYS=$(DAYS) deploy/compose.sh all

compose-update: ## exchange the version that runs in containers; nodes answer all the time
	@deploy/compose.sh update

compose-secrets: ## write the secret files of the containers, those that are missing
	@deploy/compose.sh build && deploy/compose.sh secrets

compose-test: dev ## try the containers in a real engine: a night, releases, kills, restarts
	@$(BIN)/python -m pytest tests/compose -m "engine and not drill" -n 0 $(ARGS)

compose-drill: dev ## by hand: kills in pairs, backfills, restore, move, releases, in an engine; a frozen worker, no scheduler
	@$(BIN)/python -m pytest tests/compose tests/e2e/test_celery.py tests/e2e/test_release_scheduler.py -m drill -n 0 $(ARGS)

lock: ## lock requirements*.in anew, with hashes
	@$(PYTHON) -I include/installation/bootstrap.py --lock
