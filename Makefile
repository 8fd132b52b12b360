# `make` or `make help` lists the targets. All that is needed: Python >= 3.11 with pip, and make.

PYTHON ?= python3

# uv comes from the PATH. Otherwise pip installs it into .uv, so that no other Python is changed.
UV := $(shell command -v uv || echo .uv/bin/uv)
export UV_PYTHON_DOWNLOADS := never
SYNC = $(UV) sync --frozen --quiet --python $(PYTHON)

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/run ## Serve the API on http://127.0.0.1:8000, data in ./data (HOLDFAST_HOST, HOLDFAST_PORT, HOLDFAST_WORKERS)
	@exec .venv/bin/holdfast serve

.PHONY: test
test: .venv/dev ## Run all tests that need no Docker, on a fake Redis and on a real engine
	@echo "This takes about 3 minutes on 2 cores. make test-quick takes 20 seconds."
	.venv/bin/pytest --numprocesses auto --dist worksteal

.PHONY: test-quick
test-quick: .venv/dev ## Run the fast tests, on a fake Redis or none: for use while you edit
	@echo "This takes about 20 seconds on 2 cores. make test runs all tests."
	.venv/bin/pytest --numprocesses auto --dist worksteal -m "not (engine or process or slow or e2e)"

.PHONY: test-e2e
test-e2e: .venv/e2e ## Build the containers and test how they survive failures under load; needs Docker with compose, Chromium, Prometheus and npm
	.venv/bin/pytest -m e2e tests/e2e tests/browser tests/clients tests/prometheus

.PHONY: fuzz
fuzz: .venv/dev | $(UV) ## Send more than a million bad, odd and good requests, and look for a wrong answer (10 minutes)
	$(SYNC) --inexact --group fuzz
	.venv/bin/python -m tests.fuzz

.PHONY: failover
failover: .venv/dev ## Kill, freeze and cut off primaries with replicas and sentinels under load, and count lost orders (20 minutes)
	.venv/bin/python -m tests.failover

.PHONY: faults
faults: .venv/dev ## Let 300 faults happen to processes, network, memory, disk and clocks under load, and compare all answers with the data (15 minutes)
	.venv/bin/python -m tests.faults

.PHONY: mutants
mutants: .venv/dev ## Break copies of Holdfast on purpose, and look whether the fault campaign or a test finds each (11 minutes)
	.venv/bin/python -m tests.faults.mutants

.PHONY: model-check
model-check: .venv/dev ## Search all states of small shops with several partitions for one that breaks a promise (6 minutes)
	.venv/bin/python -m tests.model_check.partitions

.PHONY: vulnerabilities
vulnerabilities: | $(UV) ## Look up all locked packages in the database of known vulnerabilities (needs the internet)
	@mkdir -p dist
	$(UV) export --frozen --no-dev --all-extras --no-emit-project --quiet --output-file dist/requirements.txt
	$(UV) tool run pip-audit --strict --disable-pip --requirement dist/requirements.txt

.PHONY: sbom
sbom: | $(UV) ## Write the list of all packages of the program to dist/sbom.json (CycloneDX 1.5)
	@mkdir -p dist
	$(UV) export --frozen --no-dev --quiet --preview-features sbom-export --format cyclonedx1.5 --output-file dist/sbom.json

.PHONY: check
check: .venv/bench ## Check style, format, types and imports; also Lua, if luacheck is installed
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	@if command -v luacheck >/dev/null; then luacheck --quiet lua; \
	else echo "luacheck is not installed (Debian: lua-check): lua/ is not checked"; fi

.PHONY: format
format: .venv/dev ## Format the code, and fix what ruff can fix
	.venv/bin/ruff check --fix --exit-zero
	.venv/bin/ruff format

.PHONY: bench
bench: .venv/bench ## Compare the speed with a handler that stores nothing and with FastAPI + PostgreSQL (3 minutes; needs wrk, redis-tools, postgresql, gcc)
	.venv/bin/python -m bench

.PHONY: bench-full
bench-full: .venv/bench ## Measure all cases of the benchmark (three quarters of an hour; needs the same)
	.venv/bin/python -m bench --full

.PHONY: clean
clean: ## Remove what make and the tools have created, but not ./data
	rm -rf .venv .uv dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Only the packages that `holdfast serve` needs, for machines without development tools.
.venv/run: pyproject.toml uv.lock | $(UV)
	$(SYNC) --no-dev --inexact
	@touch $@

.venv/dev: pyproject.toml uv.lock | $(UV)
	$(SYNC) --inexact
	@touch $@ .venv/run

.venv/e2e: pyproject.toml uv.lock | $(UV)
	$(SYNC) --inexact --group e2e
	@touch $@ .venv/dev .venv/run

# All packages: mypy checks bench/ and tests/e2e, too.
.venv/bench: pyproject.toml uv.lock | $(UV)
	$(SYNC) --group bench --group e2e
	@touch $@ .venv/e2e .venv/dev .venv/run

.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv 'uv>=0.9'
