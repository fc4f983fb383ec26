# Two commands do everything: `make run` and `make test`. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
CASES ?=
SECONDS ?= 600

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Install everything into .venv

$(STAMP): setup.cfg pyproject.toml scripts/make-venv
	scripts/make-venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $(STAMP)

run: install ## Run the gateway on an embedded broker with a simulated market
	$(BIN)/rango demo $(ARGS)

test: install ## Run all tests, with a RabbitMQ that is found or started for them
	scripts/test-packages
	scripts/test-node
	scripts/with-rabbitmq $(BIN)/pytest $(ARGS)

soak: install ## Unruly clients and a broker that restarts, for SECONDS (600)
	scripts/test-packages rabbitmq-server
	$(BIN)/python -m tests.soak --seconds $(SECONDS)

soak-viabtc: install ## A client of ViaBTC's protocol on the simulated exchange, for SECONDS (600)
	scripts/test-packages rabbitmq-server
	scripts/with-rabbitmq $(BIN)/python -m tests.soak.viabtc --seconds $(SECONDS)

bots: install ## The client behind a path with one fault after another, for SECONDS (600)
	scripts/test-packages rabbitmq-server
	scripts/with-rabbitmq $(BIN)/python -m tests.soak.bots --seconds $(SECONDS)

herd: install ## 10,000 clients that reconnect at once, 15,000 that are idle (ARGS="--hold-s 20")
	scripts/test-packages rabbitmq-server
	scripts/with-rabbitmq $(BIN)/python -m tests.soak.herd $(ARGS)

fleet: install ## Three gateways behind HAProxy, restarted and killed under clients that resume
	scripts/test-packages rabbitmq-server haproxy
	scripts/with-rabbitmq $(BIN)/python -m tests.fleet $(ARGS)

torment: install ## Attacks, each with bounds on what others may notice (ARGS="--list", "--short")
	scripts/test-packages rabbitmq-server
	PYTHONPATH=scripts scripts/with-rabbitmq --private $(BIN)/python -m tests.torment $(ARGS)

continuity: install ## Failures of a RabbitMQ cluster under a log (ARGS="--short" for the first)
	scripts/test-packages rabbitmq-server
	scripts/with-rabbitmq $(BIN)/pytest tests/continuity $(ARGS)

fuzz: SECONDS = 60
fuzz: install ## Look for input that breaks a reader, SECONDS (60) for each target of tests/fuzz
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

conformance: install ## Run Autobahn's testsuite, all of it or CASES='5.* 7.1.5'
	$(BIN)/python scripts/conformance/run.py $(ARGS) $(CASES:%='%')

bench: install ## Measure the gateway; results in bench-results/ (ARGS="fan-50 --compare")
	$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	PYTHONPATH=scripts scripts/with-rabbitmq $(BIN)/python -m bench --json bench-results/bench.json --chart bench-results/bench.svg $(ARGS)

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

audit: install ## Look for insecure code, and for known holes in what we depend on
	$(BIN)/python -c 'import bandit, pip_audit' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[audit]'
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml rango_gevent scripts/bench
	$(BIN)/pip-audit --skip-editable

types: install ## Check types
	$(BIN)/mypy

clean: ## Remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help install run test bench soak soak-viabtc bots herd fleet torment continuity fuzz audit conformance lint types clean
