# Each target does its own set-up: Python 3.11 or later and make are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
SEED ?= 0

.NOTPARALLEL:  # demo and test each install into the one environment
.PHONY: demo test test-fast lint docs notebooks bench clean

# What the demo needs is installed for the demo, and all else on top of it for the rest. torch is named first, so that
# no extra asks for another build of it. pip would compile every module, on one core, before anything starts: what runs
# first compiles what it imports, and the rest is compiled beside it. (A few modules are for other Pythons: -qq.)
PIP := -m pip install --quiet --no-compile --constraint constraints.txt
US := $(PIP) torch==2.13.0 --editable
COMPILE := -m compileall -qq
# A Python may bring a pip of years ago, which takes half as long again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$@ $(PIP) --upgrade pip

$(VENV)/demo-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(US) .
	touch $@

$(VENV)/ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(US) '.[dev,data,lora,graphs,serve,kernel,docs]'
	$(BIN)/python $(COMPILE) $(VENV)/lib & touch $(VENV)/demo-ready $@

demo: $(VENV)/demo-ready  ## the figure: train, make sparse, prove, draw; OUT=folder SEED=n
	$(BIN)/python $(COMPILE) $(VENV)/lib & $(BIN)/gossamer demo --out $(OUT) --seed $(SEED)

# xdist would begin with the files of the most tests, and so end with the longest runs; tests/conftest.py begins with them.
test: $(VENV)/ready  ## every test that this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Rooms that hold integration tests alone (tests/conftest.py) are not even imported.
ROOMS := browser integration cli recipes benchmarks
test-fast: $(VENV)/ready  ## without whole commands and runs, other processes and the browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not integration" \
		$(ROOMS:%=--ignore tests/%)

lint: $(VENV)/ready  ## format, rules, types
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/pyright src

docs: $(VENV)/ready  ## the site, in build/docs/index.html; a warning is an error, and no network is needed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

notebooks: $(VENV)/ready  ## run docs/notebooks/*.ipynb and keep what they put out; NAMES="addition ..." for some of them
	$(BIN)/python docs/notebooks/execute.py $(NAMES)

bench: $(VENV)/ready  ## what a step costs, side by side; see benchmarks/ for the long ones
	$(BIN)/python -m benchmarks.speed.training
	$(BIN)/python -m benchmarks.speed.attention
	$(BIN)/python -m benchmarks.speed.memory
	$(BIN)/python -m benchmarks.speed.generation

clean:
	rm -rf $(VENV) build dist
