# demo and test do all the set-up that a fresh machine needs (Python 3.11 or newer and make are there).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check bench clean

demo: $(VENV)/.tflite
	$(BIN)/edgeprivacy compress --backend tflite --defense wemem --compare none

test: $(VENV)/.dev
	# The emulated device that the tests of adb need; where it cannot be built they skip with the reason.
	PYTHON=$(abspath $(BIN)/python) tests/testdevice/prepare
	# Two at a time: tests that share the models they make stay in one process (tests/conftest.py).
	$(BIN)/pytest -n 2 --dist loadscope

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# converters/ and device_runner/ are installed inside the package: show mypy the tree as it is installed.
	rm -rf .mypy && mkdir -p .mypy/edgeprivacy
	ln -s $(CURDIR)/edgeprivacy/* $(CURDIR)/converters $(CURDIR)/device_runner .mypy/edgeprivacy/
	cd .mypy && $(abspath $(BIN))/mypy --config-file ../pyproject.toml -p edgeprivacy

bench: $(VENV)/.dev
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .mypy build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.tflite: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[tflite]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[tflite,executorch,dev]'
	touch $@
