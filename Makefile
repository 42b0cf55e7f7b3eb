# make demo   the whole road on built-in data: generate, train, sparsify, prune, prove, finetune
# make test   every test
# make fuzz   ten minutes of fuzzing for everything that reads a file; FUZZ_SECONDS=60 for less
# make faults   signals at random moments and full disks, over all commands; an interrupted one goes on
# All set up .venv first; `make venv` does only that, and nothing when the requirements are unchanged.

PYTHON ?= python3
BIN := .venv/bin
RESULTS := docs/results
FUZZ_SECONDS ?= 600

.PHONY: venv demo test lint bench fuzz faults

venv: .venv/.stamp

.venv/.stamp: requirements.txt requirements-test.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

demo: venv
	$(BIN)/python benchmarks/demo.py

test: venv
	$(BIN)/python -m pytest -n auto

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check

bench: venv
	$(BIN)/python benchmarks/train_step.py --json $(RESULTS)/train_step.json
	$(BIN)/python benchmarks/evaluate.py --json $(RESULTS)/evaluate.json
	$(BIN)/python benchmarks/loader.py --json $(RESULTS)/loader.json

fuzz: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-fuzz.txt
	$(BIN)/python benchmarks/fuzz.py --seconds $(FUZZ_SECONDS) --json $(RESULTS)/fuzz.json

faults: venv
	$(BIN)/python benchmarks/faults.py --json $(RESULTS)/faults.json
