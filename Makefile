# A newcomer needs two commands: `make serve` and `make test`. Both set up everything that they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROCESSES ?= 4
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
NEWER ?= $(firstword $(shell for python in python3.14 python3.13 $(HOME)/.pyenv/versions/3.1[34].*/bin/python3; do \
	$$python -c 'import sys; print(sys.executable)' 2>/dev/null; done))

# If this variable were set, no bytecode would be stored, and each process would compile the package when it starts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve demo test check quick newer mutants lint bench loadtest prove definitions client-tools lock

serve: $(STAMP) ## both services, on 127.0.0.1:8080 and :8081, data in ./data; Ctrl-C drains and stops
	@exec $(BIN)/fundledger serve

demo: $(STAMP) ## a day of a small platform on temporary services, then a proof of the books
	@$(BIN)/fundledger demo

test: $(STAMP) lint ## everything: style, types, import contracts, tests on a real Postgres; PROCESSES=1 for one after the other
	$(PYTEST) --durations 20

check: $(STAMP) lint quick ## for every edit: style, types, import contracts, and the tests that start at most one service

quick: PROCESSES = 2
quick: $(STAMP) ## the tests of `make check` without lint; in two processes, since each collects all tests and few tests wait
	$(PYTEST) --quick

newer: ## the tests of `make check` on Python 3.13 or 3.14, if installed; NEWER=python3.14 for a certain one
	$(if $(NEWER),$(MAKE) quick VENV=.venv-newer PYTHON=$(NEWER),@echo "make newer: no Python 3.13 or 3.14 found: not run")

mutants: $(STAMP) ## run the tests against small faults, one at a time; ONLY="fundledger/fund/sql ...", ARGS="--budget 600"
	$(BIN)/python -m tests.mutants --json .mutants.json --resume $(if $(ONLY),--only $(ONLY)) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.prose

bench: $(STAMP) ## short benchmarks; ARGS="--long" for the long ones
	$(BIN)/fundledger bench $(ARGS)

loadtest: $(STAMP) ## Locust beside a running `make serve`; ARGS="--users 200 --run-time 5m", SHAPE=steps or spike
	@mkdir -p benchmarks-out
	$(BIN)/locust -f benchmarks/locustfile.py --headless --only-summary -H http://127.0.0.1:8080 --users 50 \
		--spawn-rate 25 --run-time 1m --csv benchmarks-out/locust --html benchmarks-out/locust.html \
		--json-file benchmarks-out/locust $(ARGS)

prove: $(STAMP) ## verify the books of ./data; the service may be running
	$(BIN)/fundledger verify

definitions: $(STAMP) ## renew what the code makes: the definitions of the migrations, the table of flows in the reference
	$(BIN)/python -m tests.support.definitions
	$(BIN)/python -m tests.support.flow_table

client-tools: ## download what tests/client/test_generated.py needs in addition to Java, Go and Node: 60 MB
	mvn -q dependency:copy -Dartifact=org.openapitools:openapi-generator-cli:7.17.0 -DoutputDirectory=.client-tools -Dmdep.stripVersion=true
	npm install --silent --no-fund --no-audit --prefix .client-tools typescript@5.6

lock: ## renew requirements.txt from pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile -q --universal --all-extras --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.txt

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fundledger needs Python 3.11 or newer: make PYTHON=python3.13 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
