# Two commands: `make compare` and `make test`; each makes .venv first if need be.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: compare test test-slow test-faults test-reference lint setup clean
.NOTPARALLEL:

compare: setup
	$(BIN)/genlab sweep digits

test: setup
	$(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -n 2 -m slow

test-faults: setup
	$(BIN)/python -m pytest tests/faults -m "faults or not faults"

test-reference: setup .venv/fidelity/.ready .venv/dinov2/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-reference.lock
	$(BIN)/python -m pytest -n 2 -m reference

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/%/.ready: requirements-%.lock .venv/.ready
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	touch $@

clean:
	rm -rf .venv build dist
