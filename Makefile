# Everything runs in .venv; the first target that needs it makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock
# One process a core, a file of tests to each: what a file sets up for all its tests is set up once.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: help demo real test test-long test-clients test-ray test-vllm test-vllm-v2 test-real test-browser check train bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[demo,test,check,train,hf,browser,gateway]'
	touch $@

$(VENV)/installed-real: $(VENV)/installed
	$(PIP) --editable '.[demo,gateway,llamacpp,math]'
	touch $@

demo: $(VENV)/installed  ## the whole story on the embedded model, in demo/ (DEMO_ARGS=--quick for less)
	$(BIN)/justenough demo $(DEMO_ARGS)

real: $(VENV)/installed-real  ## the whole story on a real language model, in real/ (downloads 0.5 GB; REAL_ARGS="--model smollm2-135m" for 0.1 GB)
	$(BIN)/python -m benchmarks.real.run $(REAL_ARGS)

test: $(VENV)/installed-test  ## unit, property, contract, guarantee and end-to-end tests
	$(BIN)/python -m pytest $(PARALLEL)

test-long: $(VENV)/installed-test  ## what takes minutes: schemathesis with hundreds of examples
	$(BIN)/python -m pytest -m long

# Inspect takes the solver from an installed package only.
.venv-clients/installed: tests/clients/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	.venv-clients/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --editable .
	touch $@

test-clients: $(VENV)/installed-test .venv-clients/installed  ## other people's clients against the gateway (litellm, llm, inspect_ai, lm-eval, curl)
	$(BIN)/python -m pytest -m clients tests/clients

.venv-ray/installed: tests/ray/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip --disable-pip-version-check install --quiet --requirement $< --editable '.[gateway,ray]'
	touch $@

# Ray warns of its own settings.
test-ray: .venv-ray/installed  ## traces and a gateway on two workers of Ray (installs 1 GB, takes minutes)
	.venv-ray/bin/python -m pytest -m ray -o filterwarnings=default tests/ray

.venv-vllm/installed: tests/vllm/install.sh
	PYTHON=$(PYTHON) tests/vllm/install.sh

test-vllm: $(VENV)/installed-test .venv-vllm/installed  ## gateway and backend before vLLM on the CPU, and the plugin inside it (installs 2.5 GB, takes minutes)
	$(BIN)/python -m pytest -m vllm tests/vllm

.venv-vllm/triton/installed: .venv-vllm/installed
	.venv-vllm/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --target $(@D) triton==3.9.0
	touch $@

test-vllm-v2: $(VENV)/installed-test .venv-vllm/triton/installed  ## the plugin in Model Runner V2, in Triton's interpreter (1 GB more, takes minutes)
	VLLM_USE_V2_MODEL_RUNNER=1 $(BIN)/python -m pytest -m vllm tests/vllm/test_plugin.py tests/vllm/test_offline.py

test-real: $(VENV)/installed-test  ## `make real` with the smallest real model (downloads 92 MB, takes minutes)
	$(BIN)/python -m pytest -m real tests/real

test-browser: $(VENV)/installed-test  ## the report in headless Chromium (installs Debian's where there is none)
	command -v chromium >/dev/null || { \
		sudo=$$([ "$$(id -u)" -eq 0 ] || echo sudo); \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/python -m pytest $(PARALLEL) -m browser tests/browser

check: $(VENV)/installed-test  ## lint (security rules too), formatting, types, layers, stale docs, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python tests/audit.py

train: $(VENV)/installed-test  ## train the embedded model and its siblings, export them (about an hour on 2 cores)
	$(BIN)/python -m training.all

bench: $(VENV)/installed-test  ## every benchmark; results in benchmarks/results/
	$(BIN)/python -m benchmarks.all

lock: $(VENV)/installed-test  ## pin what is installed now
	$(BIN)/python -m pip --disable-pip-version-check freeze --exclude-editable > requirements.lock

clean:  ## remove the environments and what was made
	rm -rf $(VENV) .venv-clients .venv-ray .venv-vllm demo real
