# The front door. Every verb sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# What models run on: cuda where this machine has an NVIDIA driver. A build for it has a folder of its own, not in git.
TARGET ?= $(if $(wildcard /dev/nvidiactl),cuda,cpu)
REPOSITORY ?= model_repository$(if $(filter cuda,$(TARGET)),.cuda)
MODEL ?= efficientnet_lite0
USERS ?= 8
ARRIVALS ?=
DURATION ?= 20s
WARM_UP ?= 2s
PROTOCOL ?= grpc
PROCESSES ?= 1
SLO ?=
BUDGET ?= 10m
PEERS ?=
MODELS ?=
QUICK ?=
ENV ?= dev
APPLY ?=
REVISION ?=
ONLY ?=
MEASURE ?=
KEEP ?=
export ORT_DISABLE_TELEMETRY := 1

targeted = --target $(call quoted,$(TARGET)) --repository $(call quoted,$(REPOSITORY))
quoted = '$(subst ','\'',$(1))'# for the shell, whatever is in it

.PHONY: help setup demo build serve loadtest capacity tune compare deploy rollback chart bench bench-client bench-generator bench-tuning bench-gpu bench-drain bench-autoscaler bench-lint bench-overload test modules lint clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

setup: $(STAMP) ## install everything into .venv and the embedded Triton into the user's cache
	@$(BIN)/tritonkit install-server

# Installs again when any of these files changes; otherwise costs nothing.
$(STAMP): constraints.txt pyproject.toml build/pyproject.toml clients/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.12 …")'
	echo "installing into $(VENV) (some minutes the first time)"
	if command -v uv >/dev/null; then
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt -e 'build[cpu,torch,hf,zoo,tensorrt-rtx,s3]' -e clients \
	    --group dev --group load
	else
	  test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	  $(BIN)/python -m pip install --progress-bar off -c constraints.txt -e 'build[cpu,torch,hf,zoo,tensorrt-rtx,s3]' -e clients \
	    --group dev --group load | { grep --line-buffered -oE '^(Collecting|Installing) [^ ;(<>=!~]+' || true; }
	fi
	touch $@

demo: setup ## both models from PyTorch to a live, load-tested Triton; writes reports/demo
	@$(BIN)/python loadtests/demo.py $(targeted)

build: $(STAMP) ## TARGET=cpu or cuda: export and check every recipe, lay out model_repository/ or model_repository.cuda/
	@echo "target: $(TARGET), repository: $(REPOSITORY)"
	$(BIN)/tritonkit build --all $(targeted)

serve: setup build ## TARGET=…: run Triton on the repository until Ctrl-C
	@$(BIN)/tritonkit serve $(call quoted,$(REPOSITORY))

loadtest: setup build ## MODEL=… ARRIVALS=poisson:100 or USERS=8, DURATION=20s SLO=p99_ms=50; writes reports/loadtest
	@$(BIN)/python loadtests/run.py $(targeted) --model $(call quoted,$(MODEL)) \
	  $(if $(ARRIVALS),--arrivals $(call quoted,$(ARRIVALS)),--users $(call quoted,$(USERS))) \
	  --duration $(call quoted,$(DURATION)) --warm-up $(call quoted,$(WARM_UP)) --protocol $(call quoted,$(PROTOCOL)) \
	  --processes $(call quoted,$(PROCESSES)) $(if $(SLO),--slo $(call quoted,$(SLO)))

capacity: setup build ## MODEL=… SLO=p99_ms=50: the highest rate that meets the SLO; writes reports/capacity
	@$(BIN)/python loadtests/capacity.py $(targeted) --model $(call quoted,$(MODEL)) $(if $(SLO),--slo $(call quoted,$(SLO)))

tune: setup ## MODEL=… BUDGET=10m SLO=…: the best configuration, into recipe, config.pbtxt and passport; writes reports/tune
	@echo "target: $(TARGET), repository: $(REPOSITORY)"
	$(BIN)/python loadtests/tune.py $(targeted) --model $(call quoted,$(MODEL)) --budget $(call quoted,$(BUDGET)) \
	  $(if $(SLO),--slo $(call quoted,$(SLO)))

compare: setup build ## PEERS=… MODELS=… SLO=… QUICK=1: beside FastAPI, LitServe, BentoML, MLServer, PyTriton; writes reports/compare
	@$(BIN)/python loadtests/compare.py $(targeted) $(if $(PEERS),--peers $(call quoted,$(PEERS))) \
	  $(if $(MODELS),--models $(call quoted,$(MODELS))) $(if $(SLO),--slo $(call quoted,$(SLO))) \
	  $(if $(QUICK),--quick)

deploy: $(STAMP) ## ENV=dev: lint, render, validate, show what would change; APPLY=1 publishes, upgrades and tests
	@$(BIN)/python helm/deploy.py deploy $(call quoted,$(ENV)) $(if $(APPLY),--apply=$(call quoted,$(APPLY)))

rollback: $(STAMP) ## ENV=prod: the revision before, and its models; REVISION=3 names one
	@$(BIN)/python helm/deploy.py rollback $(call quoted,$(ENV)) $(if $(REVISION),--revision $(REVISION))

chart: $(STAMP) ## what is generated from the chart's values and templates: schema, README table, goldens
	@$(BIN)/python helm/schema.py
	UPDATE_GOLDENS=1 $(BIN)/python -m pytest -q tests/helm/test_goldens.py tests/helm/test_upgrade.py

bench: setup build ## served throughput over in-process onnxruntime, for both models
	@$(BIN)/python loadtests/bench_serving.py

bench-overload: setup ## MODEL=… SLO=p99_ms=100: what is answered in time at 1, 2 and 5 times the capacity, over both protocols; many minutes
	@$(BIN)/python loadtests/bench_overload.py --target $(call quoted,$(TARGET)) $(if $(SLO),--slo $(call quoted,$(SLO))) --model $(call quoted,$(MODEL))

bench-client: setup ## the client beside raw tritonclient, and through killed, restarted and silent servers
	@$(BIN)/python loadtests/bench_client.py

bench-generator: setup ## how much load a generator makes, how late it is, and what a closed loop hides
	@$(BIN)/python loadtests/bench_generator.py

bench-tuning: setup ## QUICK=1: what tuning wins over Triton's defaults, and how little of a grid it measures; 45 minutes
	@$(BIN)/python loadtests/bench_tuning.py $(if $(QUICK),--quick)

bench-gpu: setup ## ONLY=inprocess,served,scaling MODELS=…: in process and served on a GPU, with spreads; writes reports/gpu
	@$(BIN)/python loadtests/bench_gpu.py $(if $(ONLY),--only $(call quoted,$(ONLY))) $(if $(MODELS),--models $(call quoted,$(MODELS)))

bench-drain: setup ## ONLY=restart|parts|cost: rendered pods restarted under load; what each part of the drain is worth and costs; 6 minutes
	@PYTHONPATH=helm $(BIN)/python -m proofs.bench_drain $(if $(ONLY),--only $(ONLY))

bench-autoscaler: setup ## days of traffic against autoscaler settings; MEASURE=1 times a pod of TARGET and MODEL first, KEEP=1 keeps both; writes reports/autoscaler
	@PYTHONPATH=helm:loadtests $(BIN)/python -m proofs.bench_autoscaler \
	  $(if $(MEASURE),--measure --target $(call quoted,$(TARGET)) --model $(call quoted,$(MODEL))) $(if $(KEEP),--keep)

bench-lint: setup ## ONLY='plain: input' …: every field of a configuration changed, lint beside the real server; minutes; writes reports/lint
	@$(BIN)/python -m tests.build.lint.sweep $(if $(ONLY),$(call quoted,$(ONLY)))

test: setup ## the whole test suite, in several processes, then what needs the machine to itself
	@beside=0; $(BIN)/python -m pytest tests -m 'not alone' -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder || beside=$$?; \
	  $(BIN)/python -m pytest tests -m alone && exit $$beside

modules: setup ## modules of more than thirty kinds with random weights, for every target in every precision; minutes
	@ALL_MODULES=1 $(BIN)/python -m pytest tests/build/precision/test_modules.py -q

lint: $(STAMP) ## ruff, mypy, and what is generated from the chart's values
	@$(BIN)/ruff check .
	$(BIN)/python helm/schema.py --check
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove caches and reports; build/, the models and .venv stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache reports
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
