# The commands of the project. `make help` lists them.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
EXTRAS := test,notebooks,ray,slurm
WORKERS ?= 2
# The first of these that runs and is new enough makes the environment; `make setup PYTHON=...` chooses another.
PYTHON ?= $(firstword $(foreach p,python3 python3.12 python3.11 python3.10,$(shell $(p) -c $(NEW_ENOUGH) 2>/dev/null && echo $(p))))
NEW_ENOUGH := 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))'

# Another instruction set than the machine's own: AVX2 instead of AVX-512, the oldest one elsewhere.
OTHER_CPU ?= $(if $(shell grep -m1 -s avx512vl /proc/cpuinfo),ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2,ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41)

.PHONY: help setup run test numeric timm-suite check format figures constraints
.DEFAULT_GOAL := help

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' Makefile | expand -t 12

setup: $(STAMP)  ## create .venv with everything, in the tested versions

run: $(STAMP)  ## train one step of the ladder on a laptop: python run.py +step=kernel_7 (more with ARGS="...")
	$(PY) run.py +step=kernel_7 $(ARGS)

test: $(STAMP)  ## run all tests but the slow ones (more or fewer with ARGS="...")
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

numeric: $(STAMP)  ## run the tests that rest on floating-point numbers on another instruction set than the machine's own
	$(OTHER_CPU) OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "numeric and not slow" $(ARGS)

timm-suite: $(STAMP)  ## run timm's own tests of networks on ours; TIMM=DIR is a checkout of timm, of the installed version
	@if [ ! -f "$(TIMM)/tests/test_models.py" ]; then echo "make timm-suite needs TIMM=DIR, a checkout of timm with tests/test_models.py" >&2; exit 1; fi
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(PY) -m pytest -p timm_suite -p no:cacheprovider $(TIMM)/tests/test_models.py $(ARGS)

check: $(STAMP)  ## lint, format and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(STAMP)  ## put the code into its format and apply the linter's safe fixes
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# An environment that still works is kept and brought up to date; a broken or too old one is made anew.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(PY) -c $(NEW_ENOUGH) 2>/dev/null || ! $(PY) -m pip --version >/dev/null 2>&1; then \
		if [ -z "$(PYTHON)" ]; then echo "setup needs Python 3.10 or newer with venv (Debian: apt install python3-venv), or make setup PYTHON=/path/to/python3" >&2; exit 1; fi; \
		echo "creating $(VENV) with $(PYTHON)"; \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); \
	fi
	@echo 'installing the tested versions into $(VENV) (a new environment takes some minutes and gigabytes)'
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

figures: $(STAMP)  ## draw the figures of README and docs anew and renew their numbers, from results/ and the paper
	$(PY) -m analysis paper --out build/paper --formats png --size column
	$(PY) -m analysis results/fashion_mnist --out build/own --formats png --size column
	$(PY) -m analysis results/fashion_mnist --out results/report --formats png --document docs/results.md
	cp build/paper/ladder.png docs/paper-ladder.png
	cp build/own/ladder.png docs/own-ladder.png
	$(PY) -m roadmap readme README.md
	$(PY) -m roadmap readme docs/roadmaps.md
	$(PY) -m experiments bench table --readme README.md --page docs/speed.md

constraints: pyproject.toml  ## (for maintainers, needs uv) add what pyproject.toml newly asks for; ARGS=--upgrade renews all versions
	uv pip compile --quiet --universal --python-version 3.10 --all-extras pyproject.toml --no-header --no-annotate --output-file constraints.txt $(ARGS)
