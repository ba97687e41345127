# Needs make and Python 3.11 or later. `make demo` and `make test` install everything else.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
CODE := $(wildcard hatch_build.py machpay_gateway tests benchmarks examples clients/python/src clients/python/generate.py)
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

# Tests wait for the servers that they start, so one process more than there are CPUs keeps all CPUs busy.
TESTERS = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)')

COMPILED := $(CURDIR)/build/compiled
CAN_COMPILE = $(shell cc --version >/dev/null 2>&1 && ls $$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h 2>/dev/null)

# Otherwise each of the many processes of programs and tests compiles its imports again.
unexport PYTHONDONTWRITEBYTECODE

# A new virtual environment in the folder $(1).
define create
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "Python 3.11 or later is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
		"Select another one: make PYTHON=python3.12 ..." >&2; exit 1; }; \
$(PYTHON) -m venv --clear $(1) || { \
	echo "$(PYTHON) cannot create a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-lowest test-latest test-matrix coverage compiled check bench drills mutants fmt lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed ## Create .venv with the locked dependencies and the project itself.

demo: .venv-runtime/.installed ## Run the demo (ARGS="--help" shows its options).
	@.venv-runtime/bin/machpay-gateway demo $(ARGS)

test: .venv/.installed ## Run the tests in parallel (ARGS="-k key" selects).
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadgroup $(ARGS)

test-lowest: .venv/.installed ## Test the middleware, stores, limiters and commands with the lowest versions (ARGS as above).
	@$(BIN)/python -m tests.matrix lowest -- $(ARGS)

test-latest: .venv/.installed ## Test them with the latest versions (ARGS as above).
	@$(BIN)/python -m tests.matrix latest -- $(ARGS)

test-matrix: .venv/.installed ## Test the middleware with sets of versions and every Python that is here (ARGS as above).
	@$(BIN)/python -m tests.matrix --every-python -- $(ARGS)

coverage: .venv/.installed ## Run the tests and print their coverage; takes 1.5 times as long (ARGS as above).
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadgroup --cov --cov-report=term $(ARGS)

compiled: $(COMPILED)/.installed ## Compile the request path (needs a C compiler), and test it (ARGS as above).
	@PYTHONPATH=$(COMPILED) $(BIN)/machpay-gateway --version | grep compiled
	@PYTHONPATH=$(COMPILED) $(BIN)/python -P -m pytest -n $(TESTERS) --dist loadgroup tests/proxy tests/serving tests/limiters \
		tests/middleware tests/telemetry tests/test_gate.py $(ARGS)

check: .venv/.installed ## Check format, lint, types and imports.
	@failed=; \
	for command in "ruff format --check ." "ruff check ." "mypy $(CODE)" "basedpyright" "lint-imports --no-logo"; do \
		echo "== $$command"; \
		$(BIN)/$$command || failed="$$failed [$$command]"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed" >&2; exit 1; fi

bench: .venv/.installed .venv-peers/.installed $(if $(CAN_COMPILE),$(COMPILED)/.installed) ## Run the benchmarks (ARGS="--help" shows its options).
	@$(BIN)/python -m benchmarks $(ARGS)

drills: .venv/.installed ## Run the long tests that `make test` skips.
	@$(BIN)/python -m pytest -m drill $(ARGS)

mutants: .venv/.installed .venv-mutants/.installed ## Change a file, and check that tests fail (ARGS="machpay_gateway/gate.py --sample 30").
	@.venv-mutants/bin/python -m tests.mutants $(ARGS)

fmt: .venv/.installed ## Format the code, and fix lint errors automatically.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: .venv/.bootstrapped ## Update requirements/*.lock (ARGS="--upgrade" selects newer versions).
	@$(COMPILE) $(ARGS) --group bootstrap -o requirements/bootstrap.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra server -o requirements/runtime.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra server --extra fastapi --group dev -o requirements/dev.lock \
		-c requirements/bootstrap.lock -c requirements/runtime.lock
	@$(COMPILE) $(ARGS) requirements/peers.in -o requirements/peers.lock
	@$(COMPILE) $(ARGS) requirements/mutants.in -o requirements/mutants.lock

clean: ## Remove virtual environments, caches and build results.
	rm -rf .venv .venv-*/ .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf build dist htmlcov .coverage .coverage.* clients/typescript/dist clients/typescript/node_modules tests/oauth/interop/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# For the demo alone: a tenth of what developers need.
.venv-runtime/.installed: requirements/runtime.lock
	@$(call create,.venv-runtime)
	@.venv-runtime/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/runtime.lock
	@.venv-runtime/bin/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@

# pip installs only uv, and uv the rest. An incomplete .venv has no stamp file and is created again.
.venv/.bootstrapped: requirements/bootstrap.lock
	@$(call create,.venv)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@touch $@

.venv/.installed: .venv/.bootstrapped requirements/dev.lock pyproject.toml clients/python/pyproject.toml
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . --editable clients/python
	@touch $@

# In a separate folder, selected by PYTHONPATH, so that the checkout still runs from its sources.
$(COMPILED)/.installed: .venv/.installed hatch_build.py $(shell find machpay_gateway -name "*.py")
	@rm -rf $(COMPILED)
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
		--no-build-isolation --target $(COMPILED) .
	@touch $@

# The libraries in the benchmarks need an older redis client than the gateway, so they get their own environment.
.venv-peers/.installed: .venv/.bootstrapped requirements/peers.lock
	@$(BIN)/uv venv --quiet --no-project --clear --python $(BIN)/python .venv-peers
	@$(BIN)/uv pip sync --quiet --python .venv-peers/bin/python --require-hashes requirements/peers.lock
	@touch $@

.venv-mutants/.installed: .venv/.bootstrapped requirements/mutants.lock
	@$(BIN)/uv venv --quiet --no-project --clear --python $(BIN)/python .venv-mutants
	@$(BIN)/uv pip sync --quiet --python .venv-mutants/bin/python --require-hashes requirements/mutants.lock
	@touch $@
