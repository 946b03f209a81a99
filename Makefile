# The words of the project. Everything runs in .venv, made from requirements.lock.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check serve ui bench bench-serving fuzz clients drill-resume soak siege lock clean
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3.11)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

help: ## these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## the virtual environment, with exactly what requirements.lock names

.venv/installed: requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	@touch $@

demo: .venv/installed ## the bundled digits: from images to a served encoder, in minutes
	@$(BIN)/python -m pipelines.flow

test: .venv/installed ## every test, a file at a time on every core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

check: .venv/installed ## format, lint, types
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

serve: .venv/installed ## the promoted encoders on http://127.0.0.1:8080, until Ctrl-C
	@$(BIN)/python -m serving.server

ui: .venv/installed ## MLflow on http://127.0.0.1:5000 and Prefect on http://127.0.0.1:4200, until Ctrl-C
	@$(BIN)/python -m pipelines.orchestration.ui

bench: .venv/installed ## images a second, beside plain torch, other libraries and the hardware's peak
	-@$(MAKE) --no-print-directory .scratch/peers/installed
	@$(BIN)/python -m benchmarks

.scratch/peers/installed: benchmarks/speed/peers/requirements.txt
.scratch/fuzzing/installed: benchmarks/endpoint/fuzzing/requirements.txt
.scratch/%/installed:
	$(PYTHON) -m venv --clear .scratch/$*
	.scratch/$*/bin/pip install --quiet --no-deps --requirement $^
	@touch $@

bench-serving: .venv/installed ## the endpoint beside the second server, and beside no server at all
	@$(BIN)/python -m benchmarks.endpoint.throughput

fuzz: .venv/installed .scratch/fuzzing/installed ## 20,000 broken images, headers and bodies against both servers
	@$(BIN)/python -m benchmarks.endpoint.fuzz

clients: .scratch/clients/installed ## tools that make clients from openapi.yaml; with them more tests run

.scratch/clients/installed: tests/serving/clients/requirements.txt tests/serving/clients/package.json
	$(PYTHON) -m venv --clear .scratch/clients
	.scratch/clients/bin/pip install --quiet --no-deps --requirement $<
	cp tests/serving/clients/package.json .scratch/clients
	npm install --silent --no-audit --no-fund --no-package-lock --prefix .scratch/clients
	@touch $@

drill-resume: .venv/installed ## kill every training 20 times; does it end in the same bits?
	@$(BIN)/python -m benchmarks.endurance.drill

soak: .venv/installed ## half an hour of every training; does its memory stay flat?
	@$(BIN)/python -m benchmarks.endurance.soak

siege: .venv/installed ## half an hour of every kind of request, then kills; are all answers right?
	@$(BIN)/python -m benchmarks.endpoint.siege

lock: ## requirements.lock anew from pyproject.toml
	rm -rf .scratch/lock && $(PYTHON) -m venv .scratch/lock
	$(PYTHON) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	print('\n'.join(p['dependencies'] + p['optional-dependencies']['dev']))" > .scratch/lock/requirements.in
	.scratch/lock/bin/pip install --quiet --requirement .scratch/lock/requirements.in
	.scratch/lock/bin/pip freeze | sed 's/+cpu$$//' > requirements.lock

clean: ## remove what can be made again; DVC's cache and MLflow's store stay
	rm -rf artifacts data/prepared .scratch serving/run .pytest_cache .mypy_cache .ruff_cache
