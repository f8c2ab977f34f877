# Everything runs in one virtual environment that these files install; nothing else is assumed of the machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo newsroom test slow check bench clean

demo: $(INSTALLED)
	$(BIN)/premirror demo --config configs/demo/small.yaml

newsroom: $(INSTALLED)
	$(BIN)/premirror demo --config configs/demo/newsroom.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

bench: $(INSTALLED)
	for phase in ingest counters demand churn placement rebalance routing replay serving; do \
	  $(BIN)/python -m benchmarks.$$phase || exit 1; \
	done

clean:
	rm -rf $(VENV) .premirror build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.11, say.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $(INSTALLED)
