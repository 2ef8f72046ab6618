# The front door: `make help`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := protos runtime gateway svc-featurestore svc-candidate svc-eta svc-ranker svc-search svc-targeting pipelines cli client
SOURCES := runtime/src gateway/src svc-featurestore/src svc-candidate/src svc-eta/src svc-ranker/src svc-search/src svc-targeting/src pipelines/src cli/src client/src bench
PIP := $(BIN)/pip install -qq --disable-pip-version-check --no-warn-script-location -c constraints.txt
# Every editable package without build isolation: its one build tool comes from the pins too.
EDITABLE := --no-build-isolation $(foreach p,$(PACKAGES),-e $(p))

DOCKER ?= docker
REGISTRY ?=
TAG ?= $(shell sed -n 's/^appVersion: //p' helm/madang/Chart.yaml)
IMAGES := $(shell sed -n 's/^FROM .* AS \(madang-.*\)/\1/p' Dockerfile)
INDEX := $(if $(PIP_EXTRA_INDEX_URL),--build-arg PIP_EXTRA_INDEX_URL=$(PIP_EXTRA_INDEX_URL))
INSTALL = helm upgrade --install madang helm/madang -f helm/madang/values-laptop.yaml \
  --set image.registry=$(REGISTRY:%/=%) --set-string image.tag=$(TAG) --wait --timeout 10m

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types proto proto-check chart chart-schema chart-golden unit bench bench-loop bench-bandit bench-peers bench-cohort bench-regret bench-ads bench-search bench-eta bench-targeting quality-eta quality-own quality-search quality-targeting images sbom kind-up minikube-up clean lock

help: ## Show this help.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(BIN)/python:
	@echo "· a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: constraints.txt $(foreach p,$(PACKAGES),$(p)/pyproject.toml) | $(BIN)/python
	@echo "· installing Madang and what it needs (about a minute)"
	@$(PIP) hatchling editables setuptools
	@$(PIP) $(EDITABLE)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "· installing the tools of the house"
	@$(PIP) -r requirements-dev.txt
	@touch $@

setup: $(VENV)/.dev ## Install everything into .venv.

demo: $(VENV)/.run ## Train on the simulated city (or DATA=folder), start the mesh, show a feed.
	@$(BIN)/madang demo $(if $(DATA),--data $(DATA))

test: setup lint types proto-check unit ## All checks and tests.

lint: $(VENV)/.dev ## Style and the rules of the house.
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint && $(BIN)/buf format -d --exit-code

types: $(VENV)/.dev ## mypy, strict.
	@$(BIN)/mypy $(SOURCES)

proto: $(VENV)/.dev ## Generate the Python of the protos.
	@rm -rf protos/gen/madang && $(BIN)/python protos/generate.py
proto-check: $(VENV)/.dev ## Fail when the generated Python is stale.
	@fresh=$$(mktemp -d) && $(BIN)/python protos/generate.py $$fresh && \
	  diff -r -x __pycache__ protos/gen $$fresh >/dev/null || { echo "protos/gen is stale: make proto"; exit 1; }

chart: $(VENV)/.dev ## The chart alone: lint, goldens, schemas, wrong values, policies, what pods run.
	@$(BIN)/pytest -q helm
chart-schema: $(VENV)/.dev ## Write the schema of the chart's values from the services' settings.
	@$(BIN)/python helm/schema.py
chart-golden: $(VENV)/.dev ## Write what the chart makes anew, to be looked at and committed.
	@$(BIN)/python helm/tests/charts.py

# Tests of whole meshes want the machine for themselves; the others run two at a time.
ALONE := cli/tests tests
TOGETHER := $(filter-out $(ALONE),$(wildcard */tests))
unit: $(VENV)/.dev ## Tests with coverage.
	@$(BIN)/coverage erase
	@trained=$$(mktemp -d) && trap 'rm -rf $$trained' EXIT && export MADANG_TEST_TRAINED=$$trained && \
	  OMP_NUM_THREADS=1 $(BIN)/pytest $(TOGETHER) -n 2 --dist loadfile \
	    --cov --cov-report= --cov-fail-under=0 $(ARGS) && \
	  $(BIN)/pytest $(ALONE) --cov --cov-append --cov-report=term:skip-covered $(ARGS)

bench: $(VENV)/.dev ## Measure the floor: bench/floor.
	@$(BIN)/python bench/floor.py
bench-loop: $(VENV)/.dev ## Measure how fast feedback is taken, applied and seen.
	@$(BIN)/python bench/loop.py
bench-bandit: $(VENV)/.dev ## Measure what the bandit costs against its arms.
	@$(BIN)/python bench/bandit.py
bench-search: $(VENV)/.dev ## Measure search: calls a second, and what batching gains.
	@OMP_NUM_THREADS=1 $(BIN)/python bench/search.py
bench-ads: $(VENV)/.dev ## Measure ads: drilled down, served, paced.
	@$(BIN)/python bench/ads.py
bench-peers: $(VENV)/.dev ## Measure Feast, MLServer, Ray Serve, Milvus and others beside us (installs them in run/peers).
	@$(BIN)/python bench/peers.py
bench-cohort: $(VENV)/.dev ## Measure batch serving of 10 million users.
	@$(BIN)/python bench/cohort.py
bench-regret: $(VENV)/.dev ## Measure what late feedback costs bandits.
	@$(BIN)/python bench/regret.py

bench-eta: $(VENV)/.dev ## Measure arrivals: one order, a page, the refresh of all lists.
	@$(BIN)/python bench/eta.py
bench-targeting: $(VENV)/.dev ## Measure ten million users: scored out of core, segments combined.
	@$(BIN)/python bench/targeting.py

DATA_OF = $(or $(DATA),$(error give DATA=folder of the public data sets))
quality-eta: $(VENV)/.dev ## How good arrivals are, on DATA=folder and in the city: docs/results/eta.md.
	@$(BIN)/python bench/quality_eta.py $(DATA_OF)
quality-own: $(VENV)/.dev ## What training by one's own data reaches on DATA=folder: docs/results/own-data.md.
	@$(BIN)/python bench/quality_own.py $(DATA_OF)
quality-search: $(VENV)/.dev ## How good search is, on DATA=folder and in the city: docs/results/search.md.
	@$(BIN)/python bench/quality_search.py $(DATA)
quality-targeting: $(VENV)/.dev ## How good look-alikes and uplift are: docs/results/targeting.md.
	@$(BIN)/python bench/quality_targeting.py $(DATA_OF)

images: ## Build all images (REGISTRY=prefix/ TAG=… PIP_EXTRA_INDEX_URL=…).
	@for image in $(IMAGES); do echo "· $$image"; \
	  $(DOCKER) build -q --target $$image -t $(REGISTRY)$$image:$(TAG) $(INDEX) . || exit 1; done
sbom: $(VENV)/.dev ## List what each image holds, as CycloneDX in run/sbom.
	@$(PIP) cyclonedx-bom==7.5.0 && $(BIN)/python helm/sbom.py run/sbom
kind-up: images ## A kind cluster with the mesh on localhost:30080 and Jaeger on localhost:30686.
	@kind get clusters | grep -qx madang || kind create cluster --name madang --config helm/kind.yaml
	@kind load docker-image --name madang $(IMAGES:%=$(REGISTRY)%:$(TAG))
	@$(INSTALL) --kube-context kind-madang
minikube-up: images ## The same on minikube; `minikube service madang-gateway --url` tells where.
	@minikube status >/dev/null || minikube start --cpus 4 --memory 8g
	@for image in $(IMAGES:%=$(REGISTRY)%:$(TAG)); do minikube image load $$image || exit 1; done
	@$(INSTALL) --kube-context minikube

lock: ## Write constraints.txt anew from .venv.
	@{ head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | sort -f; } > constraints.new && mv constraints.new constraints.txt

clean: ## Remove the environment and everything that was run.
	@rm -rf $(VENV) run .mypy_cache .ruff_cache .pytest_cache .coverage*
