# make pilot: does MARS pay on this task?   make test: lint, types, import rules, tests
# make bench: step time, memory and Newton-Schulz into docs/benchmarks (idle machine, six minutes);
#   a checkout of the authors' code joins in by OFFICIAL=path/to/MARS
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := $(BIN)/python -m benchmarks
PEERS := $(if $(OFFICIAL),--official $(OFFICIAL))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: pilot test bench format clean

pilot: $(VENV)/.pilot
	$(BIN)/mars pilot --out mars-pilot --workers auto

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

bench: $(VENV)/.dev
	$(BENCH).step_time $(PEERS) --tensors gpt2 --json docs/benchmarks/step_time-gpt2.json
	$(BENCH).step_time $(PEERS) --tensors small --rounds 21 --json docs/benchmarks/step_time-small.json
	$(BENCH).memory $(PEERS) --json docs/benchmarks/memory.json
	$(BENCH).newton_schulz --json docs/benchmarks/newton_schulz.json
	$(BENCH).page

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.pilot: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; give another: make PYTHON=...") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) pip
	@$(PIP) -e '.[pilot]'
	@touch $@

$(VENV)/.dev: $(VENV)/.pilot
	@$(PIP) --group dev
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
