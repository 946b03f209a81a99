# Shortcuts. Everything runs in .venv, which make setup creates from requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs serve ui studies-quick bench bench-serving fuzz clients drill-resume soak siege lock clean
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3.11)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export NO_MKDOCS_2_WARNING := 1

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## install the packages of requirements.lock and the command foundry into .venv

.venv/installed: requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" 2>/dev/null || { \
	echo "$(PYTHON) is missing, or it is not Python 3.11 or 3.12. Install one, then run: make setup PYTHON=python3.12" >&2; \
	exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@
	@echo "The command foundry is ready. To use it in this shell: source .venv/bin/activate"

demo: .venv/installed ## run the whole pipeline on the bundled digits, in a few minutes
	@$(BIN)/foundry run

test: .venv/installed ## run all tests, on every core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

check: .venv/installed ## check format, lint and types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

docs: .venv/installed ## build the documentation in site/; a broken link is an error
	@$(BIN)/mkdocs build --strict

serve: .venv/installed ## serve the encoders on http://127.0.0.1:8080 until Ctrl-C
	@$(BIN)/foundry serve

ui: .venv/installed ## show MLflow (http://127.0.0.1:5000) and Prefect (http://127.0.0.1:4200) until Ctrl-C
	@$(BIN)/foundry ui

studies-quick: .venv/installed ## run a thin version of every study on digits, in a quarter of an hour
	@$(BIN)/foundry study --all --scale quick

bench: .venv/installed ## measure training speed beside plain PyTorch, other libraries and the hardware's peak
	-@$(MAKE) --no-print-directory .scratch/peers/installed
	@$(BIN)/python -m benchmarks

.scratch/peers/installed: benchmarks/speed/peers/requirements.txt
.scratch/fuzzing/installed: benchmarks/endpoint/fuzzing/requirements.txt
.scratch/%/installed:
	$(PYTHON) -m venv --clear .scratch/$*
	.scratch/$*/bin/pip install --quiet --no-deps --requirement $^
	@touch $@

bench-serving: .venv/installed ## measure the endpoint beside the FastAPI server and beside no server
	@$(BIN)/python -m benchmarks.endpoint.throughput

fuzz: .venv/installed .scratch/fuzzing/installed ## send 20,000 broken images, headers and bodies to both servers
	@$(BIN)/python -m benchmarks.endpoint.fuzz

clients: .scratch/clients/installed ## install client generators for openapi.yaml; with them, more tests run

.scratch/clients/installed: tests/serving/clients/requirements.txt tests/serving/clients/package.json
	$(PYTHON) -m venv --clear .scratch/clients
	.scratch/clients/bin/pip install --quiet --no-deps --requirement $<
	cp tests/serving/clients/package.json .scratch/clients
	npm install --silent --no-audit --no-fund --no-package-lock --prefix .scratch/clients
	@touch $@

drill-resume: .venv/installed ## kill every training run 20 times and check that the result is bit-identical
	@$(BIN)/python -m benchmarks.endurance.drill

soak: .venv/installed ## train every method for half an hour and check that memory does not grow
	@$(BIN)/python -m benchmarks.endurance.soak

siege: .venv/installed ## send every kind of request for half an hour, kill processes, and check all answers
	@$(BIN)/python -m benchmarks.endpoint.siege

lock: ## update requirements.lock from pyproject.toml
	rm -rf .scratch/lock && $(PYTHON) -m venv .scratch/lock
	$(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	print('\n'.join(p['dependencies'] + p['optional-dependencies']['dev']))" > .scratch/lock/requirements.in
	.scratch/lock/bin/pip install --quiet --requirement .scratch/lock/requirements.in
	.scratch/lock/bin/pip freeze | sed 's/+cpu$$//' > requirements.lock

clean: ## remove generated files; your images, DVC's cache and MLflow's store stay
	@if [ -x $(BIN)/foundry ]; then $(BIN)/foundry clean; else echo "There is nothing to remove before make setup."; fi
