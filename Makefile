# The commands of this project; `make` alone lists them. Everything happens in .venv, which they make and keep up to date.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PY := .venv/bin/python

.PHONY: help serve transcribe test faults fuzz lint evaluate bench format readme dashboard image stack sbom lock clean

help: ## List the commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

serve: ## Install what is missing and serve on 127.0.0.1:8000 (WHISPER_PORT and the other settings override)
	@deploy/install.sh service
	@exec $(PY) -m service

transcribe: ## Transcribe on the command line: make transcribe FILE=talk.mp3; ARGS are its options
	@: "$${FILE:?usage: make transcribe FILE=talk.mp3 [ARGS=\"--format srt\"]}"
	@deploy/install.sh service
	@exec $(PY) -m model "$$FILE" $(ARGS)

test: ## Install what is missing and run every test but the fault tests; ARGS goes to pytest
	@deploy/install.sh test
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest --ignore=tests/faults -n 2 --dist worksteal $(ARGS)

faults: ## Run the tests of the failure contract that need real processes; ARGS goes to pytest
	@deploy/install.sh test
	@$(PY) -m pytest tests/faults $(ARGS)

fuzz: ## Feed nonsense to forms, decoder and API, a minute each; ARGS="audio --seconds 600" is one of them for longer
	@deploy/install.sh fuzz
	@$(PY) -m tests.fuzz $(ARGS)

lint: ## Check formatting, style, types, import directions and the container files
	@deploy/install.sh test lint
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@deploy/native.sh check
	@$(PY) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.gpu.yml
	@if [ -x .venv/bin/docker-compose ]; then for gpu in "" "-f docker-compose.gpu.yml"; do \
		.venv/bin/docker-compose -f docker-compose.yml $$gpu config --quiet; done; fi
	@if [ -x .venv/bin/hadolint ]; then .venv/bin/hadolint Dockerfile; fi

evaluate: ## Write docs/accuracy.md: make evaluate CORPUS=dir; ARGS=--against adds openai-whisper, --quick takes a sample
	@test -n "$(CORPUS)" || { echo "usage: make evaluate CORPUS=dir [ARGS=--against]" >&2; exit 2; }
	@deploy/install.sh test
	@$(PY) -m benchmarks.evaluate $(CORPUS) $(ARGS)

bench: ## Speed: stages, then one request beside openai-whisper; all peers: python -m benchmarks.peers CORPUS
	@deploy/install.sh test
	@$(PY) -m benchmarks.stages
	@$(PY) -m benchmarks.latency

format: ## Format the code and mend what can be mended
	@deploy/install.sh lint
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

readme: ## Write the README's tables and the map of files, docs/files.md
	@deploy/install.sh service
	@$(PY) -m deploy.readme

dashboard: ## Write Grafana's dashboard from deploy/panels.py
	@deploy/install.sh service
	@$(PY) -m deploy.dashboard

image: ## Build the image without a container engine and transcribe through it (root, debootstrap, buildah)
	@deploy/image-test.sh

stack: ## Start the composition with a real engine and press on it (root, dockerd; IMAGE_TEST_DIR=dir, as for make image)
	@deploy/install.sh lint
	@deploy/stack-test.sh

sbom: ## Print a bill of materials of the image (CycloneDX); ARGS=cuda for the CUDA build
	@deploy/install.sh service
	@$(PY) -m deploy.sbom $(ARGS)

lock: ## Write requirements/*.txt anew from pyproject.toml; ARGS=--upgrade takes newer versions
	@deploy/lock.sh $(ARGS)

clean: ## Remove .venv and every cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
	@rm -f model/native/*.so
