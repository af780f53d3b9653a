# Everything starts here: `make help`. Each target does the set-up it needs by itself and does it once.

PYTHON = $(or $(shell for python in python3.11 python3.13 python3.12 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done), \
	$(error Python 3.11 or newer is needed, and none was found on PATH))
BIN := .venv/bin
# Else every process of a test or of the demo compiles what it imports anew.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= auto
ARGS ?=
DEPLOY = test -x $(BIN)/hadolint && test -x $(BIN)/cyclonedx-py && test -x $(BIN)/pip-audit && $(BIN)/python -c 'import kubernetes_validate' 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/deploy.txt
PYTEST = $(BIN)/pytest --numprocesses=$(WORKERS) --maxprocesses=8 --dist=worksteal
COUNT = --cov=replicator/domain --cov=replicator/engine --cov-branch --cov-report=
JUDGE = $(BIN)/coverage report --include='replicator/domain/*' --fail-under=100 && \
	$(BIN)/coverage report --include='replicator/engine/*' --fail-under=95

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long coverage test-and-coverage prove incidents bench lambda lint deploy-check image-check image-check-arm64 deb audit release-check format lock schema

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  ARGS=... goes to the program behind demo, test, bench and lock, for example: make demo ARGS=--duration=10"

setup: ## make .venv with the program, the demo's servers and the test tools
	@$(PYTHON) requirements/environment.py

demo: setup ## replicate real traffic between local servers, then compare every item
	@$(BIN)/replicator demo $(ARGS)

test: setup ## run the tests, one case of each kind, in parallel and in random order
	$(PYTEST) -m "not long" $(ARGS)

test-long: setup ## run all seeds, explorers, killed daemons, the demo, and set-ups of a later day
	$(PYTEST) -m long $(ARGS)

coverage: setup ## run what is close to the code and throws no dice, and judge how much of domain and engine it reaches
	$(PYTEST) -m "not long and not no_cover" $(COUNT)
	$(JUDGE)

test-and-coverage: setup ## both at once, as CI does: what is counted runs no second time
	$(PYTEST) -m "not long" $(COUNT) $(ARGS)
	$(JUDGE)

prove: setup ## search mode active-active: SET=zombie, SEEDS=100000, ABLATE=all (what is found stays in .prove.jsonl)
	$(BIN)/python -m tests.simulation.prove $(if $(SET),--set $(SET)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(ABLATE),--ablate $(ABLATE)) $(ARGS)

incidents: setup ## let each situation of an incident happen, and write what is seen into docs/operations.md
	@PATH=$(CURDIR)/.cache/tools/prometheus/usr/bin:$$PATH $(BIN)/python -m tests.incidents $(ARGS)

bench: setup ## measure processor time per record beside other consumers (ARGS=--full: all of it; docs/performance.md)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/bench.txt
	$(BIN)/python -m benchmarks.hot_path $(ARGS)
	$(BIN)/python docs/generate.py
	$(BIN)/python -m benchmarks.caches

lambda: setup ## build the function for AWS Lambda (ARGS="--arch arm64 --python 3.12 --compiled"; docs/lambda.md)
	@$(BIN)/python lambda/build.py $(ARGS)

lint: setup ## check style, types, layers, spelling, dependencies, lock files and the schema
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/deptry .
	$(BIN)/python requirements/lock.py --check
	$(BIN)/replicator schema --check config/replicator.schema.json
	$(BIN)/replicator schema --api --check docs/openapi.json
	$(BIN)/python helm/generate.py --check
	$(BIN)/python docs/generate.py --check

deploy-check: setup ## render the chart, install it in an API server (built with Go, once), and check all that is deployed
	@$(DEPLOY)
	@$(BIN)/python helm/deploy_tools.py
	PATH=$$PATH:$(CURDIR)/.cache/tools/prometheus/usr/bin DEPLOY_TOOLS=$(CURDIR)/.cache/tools $(PYTEST) \
		$(patsubst %,tests/deploy/test_%.py,chart rendered_chart image systemd terraform install_pages planted_faults api_server) $(ARGS)

image-check: setup ## build the image with buildah (as root, no registry needed), run it, and state its size
	@$(DEPLOY)
	IMAGE_CHECK=1 $(PYTEST) --numprocesses=0 -rPs tests/deploy/test_built_image.py tests/deploy/test_pods.py \
		tests/deploy/test_wheels.py tests/deploy/test_installed.py tests/deploy/test_rolling_restart.py $(ARGS)

image-check-arm64: setup ## the image for arm64, built and run under qemu-user-static (half an hour)
	@$(DEPLOY)
	IMAGE_CHECK=arm64 $(PYTEST) --numprocesses=0 -rPs tests/deploy/test_built_image.py $(ARGS)

deb: setup ## build a Debian package for Debian's Python 3.11, in dist/
	@$(BIN)/python config/systemd/build_deb.py $(ARGS)

audit: setup ## look for secrets in the tree, and for advisories about what is pinned (where a service answers)
	@$(DEPLOY)
	$(BIN)/python -m tests.deploy.auditing $(ARGS)
	$(PYTEST) --numprocesses=0 tests/deploy/test_audit.py

release-check: setup ## build wheel and source twice, run the demo from the wheel, list its parts, roll earlier versions out
	@$(DEPLOY)
	RELEASE_CHECK=1 $(PYTEST) --numprocesses=0 tests/deploy/test_release.py tests/deploy/test_old_versions.py $(ARGS)

format: setup ## format the code and apply safe corrections
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: setup ## compile requirements/*.txt from pyproject.toml (ARGS=--upgrade moves the pins)
	$(BIN)/python requirements/lock.py $(ARGS)

schema: setup ## export the configuration's JSON schema, the API's document, and what of the chart is made from it and from config/
	$(BIN)/replicator schema > config/replicator.schema.json
	$(BIN)/replicator schema --api > docs/openapi.json
	$(BIN)/python config/grafana/generate.py
	$(BIN)/python helm/generate.py
	$(BIN)/python docs/generate.py
