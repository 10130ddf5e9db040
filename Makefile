# Every target sets up what it needs in .venv; the machine needs Python 3.11+ and make only.
PYTHON ?= python3
BIN := .venv/bin
QUICK := not slow and not peers
export TFDS_DATA_DIR ?= $(CURDIR)/.venv/tensorflow_datasets
export TF_CPP_MIN_LOG_LEVEL ?= 1

.PHONY: demo test test-slow test-slow-jax test-peers exactness soak plan-tables gallery lint format wheel docs bench race clean

demo: .venv/installed  ## train on real data; leaves curves, a report and the model in runs/demo
	rm -rf runs/demo
	$(BIN)/python examples/train.py --output runs/demo

test: .venv/installed  ## all tests but the slow ones, on TensorFlow
	$(BIN)/python -m pytest -n 2 -m "$(QUICK) and not alone"
	$(BIN)/python -m pytest -m "$(QUICK) and alone"

test-slow: .venv/installed  ## the slow ones on TensorFlow, and all but the slow ones on JAX
	$(BIN)/python -m pytest -n 2 -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 -m "$(QUICK) and not tensorflow"

test-slow-jax: .venv/installed  ## the slow ones on JAX
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 -m "slow and not tensorflow"

test-peers: .venv/installed  ## optimizers against PyTorch, Optax and the authors' own packages
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m pytest -m peers

exactness: .venv/installed  ## the table: replicas against one device, case by case (a quarter of an hour)
	$(BIN)/python -W ignore -m tests.exactness

soak: .venv/installed  ## a training killed at thirty random moments, against one left alone, bit for bit
	$(BIN)/python -m tests.soak --kills 30

plan-tables: .venv/installed  ## the planner beside published figures; fails where it is too far off
	$(BIN)/python -m kerasopt.strategies.validate_plan

gallery: .venv/installed  ## the lecture's claims tried out: docs/gallery.md (under ten minutes)
	$(BIN)/python examples/gallery

lint: .venv/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: .venv/installed  ## build sdist and wheel; install and use the wheel outside the checkout
	rm -rf build dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python tests/check_wheel.py dist

docs: .venv/installed-docs  ## the documentation, in site/index.html; checks its code, names and links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m pytest -m "" tests/test_docs.py

bench: .venv/installed-bench  ## speed against the peers, as the table of the README
	$(BIN)/python -m benchmarks

race: .venv/installed  ## all optimizers, tuned alike, on three tasks: a table and a picture
	$(BIN)/python examples/race.py --output runs/race

clean:
	rm -rf .venv build dist runs site *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("kerasopt needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
