# make pilot: does MARS pay on this task?   make test: lint, types, import rules, tests
#   make test-all: the slow tests too; that is what CI runs
# make bench: step time, memory and Newton-Schulz into docs/benchmarks (idle machine, eight minutes);
#   a checkout of the authors' code joins in by OFFICIAL=path/to/MARS
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := $(BIN)/python -m benchmarks
PEERS := $(if $(OFFICIAL),--official $(OFFICIAL))
SUDO := $(if $(shell command -v sudo),sudo)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: pilot docs check test test-all test-slurm test-hosts test-peers zoo examples bench theory format clean

pilot: $(VENV)/.pilot
	$(BIN)/mars pilot --out mars-pilot --workers auto

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md docs src tests examples benchmarks recipes
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# lint and types beside the tests; what they found is said last
test: $(VENV)/.dev
	@$(MAKE) --no-print-directory check > $(VENV)/check.log 2>&1 & check=$$!; \
		OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow"; tests=$$?; \
		wait $$check; found=$$?; cat $(VENV)/check.log; exit $$((tests | found))

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

# Pilots on a real SLURM cluster of one node on loopback, which it starts and ends (Debian, some minutes)
test-slurm: $(VENV)/.dev
	command -v slurmctld slurmd munged >/dev/null 2>&1 || test -x /usr/sbin/slurmctld -a -x /usr/sbin/slurmd -a -x /usr/sbin/munged \
		|| { $(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; }
	MARS_TEST_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/slurm -v

# Real packages that host our optimizers (tests/integrations/real/requirements.txt), in a venv of their own
#   that looks into $(VENV) too: torch is the one there
HOSTS := $(VENV)/hosts
SITE := import sysconfig; path = sysconfig.get_path("purelib")
test-hosts: $(VENV)/.dev
	$(BIN)/python -m venv $(HOSTS)
	$(BIN)/python -c '$(SITE); print(f"import site; site.addsitedir({path!r})")' \
		> "$$($(HOSTS)/bin/python -c '$(SITE); print(path)')/beside.pth"
	DS_BUILD_OPS=0 $(HOSTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
		-c constraints.txt -r tests/integrations/real/requirements.txt
	DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 $(HOSTS)/bin/python -m pytest tests/integrations/real -v

# Test suites of torch, timm and pytorch_optimizer, fetched, on our optimizers (docs/reliability.md; minutes).
#   torch's are in no package: TORCH_TESTS=path/to/pytorch/test
test-peers: $(VENV)/.dev
	TORCH_TESTS=$(TORCH_TESTS) $(BIN)/python tests/peers/run.py $(VENV)/peers

# Installable optimizers through the contract check that an arm goes through: docs/optimizer-zoo.md
#   (ten minutes). dion and emerging-optimizers are in no index: SOURCES=path/to/dion:path/to/...
ZOO := $(VENV)/zoo
zoo: $(VENV)/.dev
	$(BIN)/python -m venv $(ZOO)
	$(BIN)/python -c '$(SITE); print(f"import site; site.addsitedir({path!r})")' \
		> "$$($(ZOO)/bin/python -c '$(SITE); print(path)')/beside.pth"
	$(ZOO)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		-r benchmarks/zoo_requirements.txt
	TORCHDYNAMO_DISABLE=1 OMP_NUM_THREADS=1 PYTHONPATH=$(SOURCES) $(ZOO)/bin/python -m benchmarks.optimizer_zoo

bench: $(VENV)/.dev
	mkdir -p docs/benchmarks
	$(BENCH).step_time $(PEERS) --tensors gpt2 --json docs/benchmarks/step_time-gpt2.json
	$(BENCH).step_time $(PEERS) --tensors small --rounds 21 --json docs/benchmarks/step_time-small.json
	$(BENCH).memory $(PEERS) --json docs/benchmarks/memory.json
	$(BENCH).newton_schulz --json docs/benchmarks/newton_schulz.json
	$(BENCH).training_step --threads 1 --json docs/benchmarks/training_step.json
	$(BENCH).page

# The reports in docs/, made again from nothing: a loss, a win, and one that cannot tell. Git holds them as
#   Markdown, their runs packed: mars report docs/example writes the HTML
examples: $(VENV)/.pilot
	rm -rf docs/example docs/example-win docs/example-undecided
	$(BIN)/mars pilot --out docs/example --workers auto
	$(BIN)/mars pilot --out docs/example-win --workers auto --set 'arms=["adamw", "nadamw"]' \
		--set comparison.candidate=nadamw --set cost.price_per_hour=2.5
	$(BIN)/mars pilot --out docs/example-undecided --workers auto --set training.steps=300 \
		--set 'arms=["adamw", "nadamw"]' --set comparison.candidate=nadamw \
		--set 'comparison.seeds=[1, 2]' --set decision.looks=once \
		--set 'comparison.ladder=[0.5, 0.75, 1.5]' --set comparison.ladder_seeds=0 --set comparison.rungs=always \
		--set comparison.trials_pair=false --set comparison.others=always --set cost.price_per_hour=2.5
	for name in example example-win example-undecided; do $(BIN)/mars report docs/$$name --lang ja \
		&& tar -cJf docs/$$name/runs.tar.xz -C docs/$$name --exclude=.lock runs || exit; done

# The pictures of docs/theory.md
theory: $(VENV)/.pilot
	$(BIN)/python -m docs.figures.theory
	$(BIN)/python -m docs.figures.gamma

# The site, into site/: read it by `python -m http.server -d site`. Nothing is fetched, warnings are errors
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

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
