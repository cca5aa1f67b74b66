# The front door. Every verb sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# macOS comes with 3.81, which would run each line of a recipe by itself.
ifeq ($(filter oneshell,$(.FEATURES)),)
  $(error this is make $(MAKE_VERSION), and 4.0 or newer is needed: `brew install make` and then gmake; without make, docs/guides/install.md)
endif

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# What models run on: cuda where this machine has an NVIDIA driver. A build for it has a folder of its own, not in git.
TARGET ?= $(if $(wildcard /dev/nvidiactl),cuda,cpu)
REPOSITORY ?=
# A recipe's file, wherever it lies, or its name in build/recipes: every verb takes it, and those that serve or measure
# serve that model alone.
MODEL ?=
USERS ?= 8
ARRIVALS ?=
STREAMS ?= 8,32
DURATION ?= 20s
WARM_UP ?= 2s
PROTOCOL ?= grpc
PROCESSES ?= 1
SLO ?=
REQUESTS ?=
PROMPT_TOKENS ?=
ANSWER_TOKENS ?=
BUDGET ?= 10m
PEERS ?=
MODELS ?=
OPTIONS ?=
QUICK ?=
ENV ?= dev
APPLY ?=
REVISION ?=
ONLY ?=
MEASURE ?=
KEEP ?=
KILLS ?= 1
ROOM ?=
export ORT_DISABLE_TELEMETRY := 1

repository = $(or $(REPOSITORY),model_repository$(if $(filter-out cpu,$(TARGET)),.$(TARGET)))
targeted = --target $(call quoted,$(TARGET)) --repository $(call quoted,$(repository))
# Verbs that only measure build what they serve in a temporary place, unless a repository is named.
measured = --target $(call quoted,$(TARGET)) $(if $(REPOSITORY),--repository $(call quoted,$(REPOSITORY)))
model = $(call quoted,$(or $(MODEL),efficientnet_lite0))
recipe = $(call quoted,$(if $(or $(findstring /,$(MODEL)),$(filter %.yaml %.yml,$(MODEL))),$(MODEL),build/recipes/$(MODEL).yaml))
# Of a language model: what is sent.
tokens = $(if $(REQUESTS),--requests $(call quoted,$(REQUESTS))) $(if $(PROMPT_TOKENS),--prompt-tokens $(call quoted,$(PROMPT_TOKENS))) \
  $(if $(ANSWER_TOKENS),--answer-tokens $(call quoted,$(ANSWER_TOKENS)))
room = $(call quoted,tests$(addprefix /,$(ROOM)))
rooms = $(patsubst tests/%/,%,$(sort $(dir $(wildcard tests/*/test_*.py tests/*/*/test_*.py))))
quoted = '$(subst ','\'',$(1))'# for the shell, whatever is in it
# Ends with what a misspelt name was probably meant to be: $(call suggest,what it is,the name,those that there are)
suggest = $(PYTHON) -c 'import difflib, sys; kind, name, *known = sys.argv[1:]; known_by_case = {word.lower(): word for word in known}; \
  near = [known_by_case[word] for word in difflib.get_close_matches(name.lower(), known_by_case, 1)]; \
  print("there is no", kind, name + (("; did you mean %s?" % near[0]) if near else "; `make help` lists what there is"))' \
  $(call quoted,$(1)) $(call quoted,$(2)) $(3)
named = $(shell sed -nE 's/$(1)/\1/p' $(firstword $(MAKEFILE_LIST)))

# USERS that somebody gave: with ARRIVALS they contradict each other, where the default of USERS does not.
given_users = $(filter command environment,$(origin USERS))

# A variable that no verb reads would be taken for none.
given := $(foreach name,$(.VARIABLES),$(if $(findstring command,$(origin $(name))),$(name)))
unknown := $(firstword $(if $(given),$(filter-out SHELL $(call named,^([A-Z_]+) [?:]?=.*),$(given))))
ifneq ($(unknown),)
  $(error $(shell $(call suggest,variable,$(unknown),$(call named,^([A-Z_]+) [?]=.*))))
endif

.PHONY: help setup demo build serve loadtest capacity tune compare deploy rollback chart bench bench-trees bench-client bench-generator bench-tuning bench-gpu bench-drain bench-autoscaler bench-lint bench-overload test test-llm modules lint docs clean advisor-validate demo-llm bench-llm

help: ## list the verbs, each with an example below where it takes variables
	@grep -hE '^([a-z-]+:.*##|#: )' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/; s/^#: /\t$$ /' | expand -t 26

.DEFAULT:
	@echo "error: $$($(call suggest,verb,$@,$(call named,^([a-z-]+):.*##.*)))" >&2
	exit 2

setup: $(STAMP) ## install everything into .venv and the embedded Triton into the user's cache
	@$(BIN)/tritonkit install-server

# Installs again when any of these files changes; otherwise costs nothing.
$(STAMP): constraints.txt pyproject.toml build/pyproject.toml clients/pyproject.toml loadtests/pyproject.toml build/install.py
	@$(PYTHON) build/install.py --venv $(VENV)
	touch $@

demo: setup ## both models from PyTorch to a live, load-tested Triton; writes reports/demo
#: make demo TARGET=cpu
	@$(BIN)/python -m tritonkit_load.demo $(targeted)

demo-llm: setup ## a language model with vLLM (2.4 GB, installed first): streamed chat, OpenAI's client, times of tokens; writes reports/demo-llm
#: make demo-llm TARGET=cpu
	@$(BIN)/python -m tritonkit_load.demo_llm $(measured)

build: $(STAMP) ## TARGET=cpu, cuda or tensorrt: export and check every recipe, or MODEL=… alone; lay out model_repository/ or model_repository.TARGET/
#: make build TARGET=cuda
	@echo "target: $(TARGET), repository: $(repository)"
	$(BIN)/tritonkit build $(if $(MODEL),$(recipe),--all) $(targeted)

serve: setup build ## TARGET=…: run Triton on the repository, or on MODEL=… alone, until Ctrl-C; OPTIONS='--model-control-mode=poll' are tritonserver's
#: make serve TARGET=cpu MODEL=all_minilm_l6_v2
	@$(BIN)/tritonkit install-server $(call quoted,$(repository)) >/dev/null # what its Python models import
	$(BIN)/tritonkit serve $(call quoted,$(repository)) $(if $(MODEL),--recipe $(recipe)) $(if $(OPTIONS),-- $(OPTIONS))

loadtest: setup ## MODEL=… ARRIVALS=poisson:100 or USERS=8, DURATION=20s SLO=p99_ms=50; writes reports/loadtest
#: make loadtest MODEL=all_minilm_l6_v2 ARRIVALS=poisson:100 DURATION=30s SLO=p99_ms=50
#: make loadtest MODEL=llama.yaml ARRIVALS=poisson:2 SLO=ttft_p95_ms=500,itl_p95_ms=120
	@$(BIN)/tritonkit-load run $(measured) --model $(model) \
	  $(if $(ARRIVALS),--arrivals $(call quoted,$(ARRIVALS))) $(if $(or $(given_users),$(if $(ARRIVALS),,default)),--users $(call quoted,$(USERS))) \
	  --duration $(call quoted,$(DURATION)) --warm-up $(call quoted,$(WARM_UP)) --protocol $(call quoted,$(PROTOCOL)) \
	  --processes $(call quoted,$(PROCESSES)) $(if $(SLO),--slo $(call quoted,$(SLO))) $(tokens)

capacity: setup ## MODEL=… SLO=p99_ms=50: the highest rate that meets the SLO; writes reports/capacity
#: make capacity MODEL=all_minilm_l6_v2 SLO=p99_ms=50
	@$(BIN)/tritonkit-load capacity $(measured) --model $(model) $(if $(SLO),--slo $(call quoted,$(SLO))) $(tokens)

tune: setup ## MODEL=… BUDGET=10m SLO=…: the best configuration, into recipe, config.pbtxt and passport; writes reports/tune
#: make tune MODEL=all_minilm_l6_v2 BUDGET=10m
	@echo "target: $(TARGET), repository: $(repository)"
	$(BIN)/tritonkit-load tune $(targeted) --model $(model) --budget $(call quoted,$(BUDGET)) \
	  $(if $(SLO),--slo $(call quoted,$(SLO)))

compare: setup ## PEERS=… MODELS=… SLO=… QUICK=1: beside FastAPI, LitServe, BentoML, MLServer, PyTriton; writes reports/compare
#: make compare PEERS=fastapi,litserve MODELS=efficientnet_lite0 QUICK=1
	@$(BIN)/tritonkit-load compare $(measured) $(if $(PEERS),--peers $(call quoted,$(PEERS))) \
	  $(if $(or $(MODELS),$(MODEL)),--models $(call quoted,$(or $(MODELS),$(MODEL)))) $(if $(SLO),--slo $(call quoted,$(SLO))) \
	  $(if $(QUICK),--quick)

deploy: $(STAMP) ## ENV=dev: lint, render, validate, show what would change; APPLY=1 publishes, upgrades and tests
#: make deploy ENV=prod APPLY=1
	@$(BIN)/tritonkit deploy $(call quoted,$(ENV)) $(if $(APPLY),--apply=$(call quoted,$(APPLY)))

rollback: $(STAMP) ## ENV=prod: the revision before, and its models; REVISION=3 names one
#: make rollback ENV=prod REVISION=3
	@$(BIN)/tritonkit deploy $(call quoted,$(ENV)) --rollback $(if $(REVISION),$(REVISION))

chart: $(STAMP) ## what is generated from the chart's values and templates: schema, README table, goldens
	@$(BIN)/python helm/schema.py
	UPDATE_GOLDENS=1 $(BIN)/python -m pytest -q tests/helm/test_goldens.py tests/helm/test_upgrade.py

bench: setup ## MODEL=…: served throughput over in-process onnxruntime; both models if none is named
#: make bench MODEL=all_minilm_l6_v2
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_serving $(if $(MODEL),--model $(model))

bench-overload: setup ## MODEL=… SLO=p99_ms=100: what is answered in time at 1, 2 and 5 times the capacity, over both protocols; many minutes
#: make bench-overload MODEL=efficientnet_lite0 SLO=p99_ms=100
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_overload --target $(call quoted,$(TARGET)) $(if $(SLO),--slo $(call quoted,$(SLO))) --model $(model)

bench-llm: setup ## MODEL=llama.yaml STREAMS=8,32 QUICK=1: vLLM in Triton beside the same vLLM's own server; writes reports/bench-llm
#: make bench-llm STREAMS=8 QUICK=1
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_llm --target $(call quoted,$(TARGET)) --streams $(call quoted,$(STREAMS)) \
	  $(if $(MODEL),--model $(model)) $(if $(QUICK),--quick)

bench-trees: setup ## MODEL=breast_cancer: a forest served, beside its own library in process, at 1, 8, 64 and 1,024 rows
#: make bench-trees MODEL=breast_cancer
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_trees $(if $(MODEL),--model $(model))

bench-client: setup ## the client beside raw tritonclient, and through killed, restarted and silent servers
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_client

bench-generator: setup ## how much load a generator makes, how late it is, and what a closed loop hides
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_generator

bench-tuning: setup ## MODEL=… QUICK=1: what tuning wins over Triton's defaults, and how little of a grid it measures; 45 minutes
#: make bench-tuning QUICK=1
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_tuning $(if $(MODEL),--model $(model)) $(if $(QUICK),--quick)

bench-gpu: setup ## ONLY=inprocess,served,scaling MODELS=…: in process and served on a GPU, with spreads; writes reports/gpu
#: make bench-gpu ONLY=inprocess,served MODELS=bert_base
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_gpu $(if $(ONLY),--only $(call quoted,$(ONLY))) $(if $(MODELS),--models $(call quoted,$(MODELS)))

bench-drain: setup ## ONLY=restart|parts|cost: rendered pods restarted under load; what each part of the drain is worth and costs; 6 minutes
#: make bench-drain ONLY=restart
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_drain $(if $(ONLY),--only $(ONLY))

bench-autoscaler: setup ## days of traffic against autoscaler settings; MEASURE=1 times a pod of TARGET and MODEL first, KEEP=1 keeps both; writes reports/autoscaler
#: make bench-autoscaler MEASURE=1 TARGET=cpu MODEL=efficientnet_lite0
	@$(BIN)/python -m tritonkit_load.benchmarks.bench_autoscaler \
	  $(if $(MEASURE),--measure --target $(call quoted,$(TARGET)) --model $(model)) $(if $(KEEP),--keep)

advisor-validate: $(STAMP) ## the advisor's predictions beside measured rows that its coefficients never saw; writes nothing
	@$(BIN)/python -m tritonkit.advisor.validate
	$(BIN)/python -m tritonkit.advisor.validate_language

bench-lint: setup ## ONLY='plain: input' …: every field of a configuration changed, lint beside the real server; minutes; writes reports/lint
#: make bench-lint ONLY='plain: input'
	@$(BIN)/python -m tests.build.lint.sweep $(if $(ONLY),$(call quoted,$(ONLY)))

test: setup ## the whole test suite, or ROOM=clients alone, in several processes, then what needs the machine to itself
#: make test ROOM=build/trees
	@if [ ! -d $(room) ]; then echo "error: $$($(call suggest,room,$(ROOM),$(rooms)))" >&2; exit 2; fi
	beside=0; $(BIN)/python -m pytest $(room) -m 'not alone' -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder || beside=$$?
	alone=0; $(BIN)/python -m pytest $(room) -m alone || alone=$$?
	# pytest ends with 5 where a room has no test of a kind.
	if [ -n $(call quoted,$(ROOM)) ] && [ $$alone = 5 ]; then alone=0; fi
	exit $$(( alone ? alone : beside ))

test-llm: setup ## generation with vLLM, which it installs first (2.4 GB); KILLS=17 ends each process of it so often
#: make test-llm KILLS=17
	@$(BIN)/tritonkit install-server --engine vllm
	TEST_LLM=1 KILLS=$(call quoted,$(KILLS)) $(BIN)/python -m pytest tests/build/llm -m llm

modules: setup ## modules of more than thirty kinds with random weights, for every target in every precision; minutes
	@ALL_MODULES=1 $(BIN)/python -m pytest tests/build/precision/test_modules.py -q

lint: $(STAMP) ## ruff, mypy, and what is generated from the chart's values
	@$(BIN)/ruff check .
	$(BIN)/python helm/schema.py --check
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP) ## the documentation as a site, its links checked; writes reports/docs
	@$(BIN)/sphinx-build -W --keep-going docs reports/docs
	echo "Site: reports/docs/index.html"

clean: ## remove caches and reports; build/, the models and .venv stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache reports
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
