# make demo, make test: the two commands to know. ARGS goes through: make demo ARGS='--once --json'
# Results go to stdout, everything else to stderr.
MAKEFLAGS += --no-print-directory
# Some images say that Python keeps no bytecode: every process of ours would compile itself anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
ARGS ?=
BENCH ?= all

.PHONY: help demo up install test lint format bench soak mutants fleet screenshots lock

help:
	@sed -n 's/^## //p' Makefile

## demo     the whole system with simulated shops and real photographs
demo:
	@scripts/setup.sh runtime photos
	@$(BIN)/storeops demo $(ARGS)

## up       production: the embedded or the configured parts, your data
up:
	@scripts/setup.sh runtime
	@$(BIN)/storeops up $(ARGS)

## install  only what the two above need
install:
	@scripts/setup.sh runtime photos

## test     all tests
test:
	@scripts/setup.sh dev photos
	@# Once for all the processes of the tests, which would compile the same beside one another.
	@$(BIN)/python -m compileall -q -j 0 runtime actors devices gateway models
	@# 60 s a test where it runs alone; side by side on a machine that may stall, twice that.
	@$(BIN)/pytest -n auto --dist loadgroup --no-loadscope-reorder --timeout 120 $(ARGS)

## lint     ruff, import contracts, mypy
lint:
	@scripts/setup.sh dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

## format   what ruff can mend
format:
	@scripts/setup.sh dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

## bench    the benchmarks, one JSON object each (BENCH=slice for one)
bench:
	@scripts/setup.sh dev photos
	@$(BIN)/storeops bench $(BENCH) --json $(ARGS)

## soak     30 minutes: seeds of the simulated shop, a fleet through all chaos, long tests (SOAK_MINUTES)
SOAK_MINUTES ?= 30
soak:
	@scripts/setup.sh dev photos
	@$(BIN)/python -m tests.simulation.sweep --seeds 1000000 --minutes $$(( $(SOAK_MINUTES) * 4 / 10 ))
	@$(BIN)/storeops fleet --stores 200 --rate 60 --seconds $$(( $(SOAK_MINUTES) * 60 * 4 / 10 )) --chaos all $(ARGS)
	@$(BIN)/pytest -m soak --timeout 7200

## mutants  a mutation pass over the money rules, hours long (ARGS='charging ledger' for two files)
mutants:
	@scripts/setup.sh dev
	@[ -d var/cosmic-ray ] || $(BIN)/python -m pip install --quiet --no-deps --target var/cosmic-ray \
	  cosmic-ray==8.7.0 parso==0.8.7 >&2
	@nice -n 19 $(BIN)/python scripts/mutants.py $(ARGS)

## fleet    1,000 stores x 3 terminals through one minute of all chaos
fleet:
	@scripts/setup.sh dev photos
	@$(BIN)/storeops fleet --chaos all --brisk $(ARGS)

## screenshots  the pictures of the READMEs, from a demonstration of its own
screenshots:
	@scripts/setup.sh dev photos
	@$(BIN)/python scripts/screenshots.py $(ARGS)

## lock     the requirement locks anew, with hashes and without an index host (needs uv)
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv on PATH" >&2; exit 1; }
	@$(LOCK) requirements/runtime.in -o requirements/lock.txt
	@$(LOCK) -c requirements/lock.txt requirements/dev.in -o requirements/lock-dev.txt
