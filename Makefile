# make demo, make test: the two commands to know. ARGS goes through: make demo ARGS='--once --json'
# Results go to stdout, everything else to stderr.
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
ARGS ?=
BENCH ?= all

.PHONY: help demo up install test lint format bench soak screenshots lock

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
	@$(BIN)/pytest -n logical --maxprocesses 4 --dist loadgroup $(ARGS)

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

## soak     the seeded shop for longer (STOREOPS_SOAK_SEEDS, default 2000)
soak:
	@scripts/setup.sh dev photos
	@STOREOPS_SOAK_SEEDS="$${STOREOPS_SOAK_SEEDS:-2000}" $(BIN)/pytest tests/simulation -m soak --timeout 7200 $(ARGS)

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
