# Every target builds .venv first when it is missing or older than what it is made from.
SHELL := /bin/bash
PY := .venv/bin/python
STAMP := .venv/.installed

# Compiled bytecode halves the start of every Ray process; Ray would re-run `uv run` for each worker.
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help install demo ablation-demo serve lint fix audit test test-slow coverage bench docs clean

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## build .venv from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	python3 -c 'import sys; sys.exit(f"python 3.11 or newer is needed, this is {sys.version.split()[0]}" if sys.version_info < (3, 11) else 0)'
	test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv -c constraints.txt
	.venv/bin/uv pip install --quiet --python $(PY) -c constraints.txt -e '.[demo,dev]'
	touch $@

demo: $(STAMP)  ## folder of pictures -> shards -> training -> sweep -> endpoint -> answers
	$(PY) infra/demo.py

ABLATION := data/elpv-ablation
ablation-demo: $(STAMP)  ## an ablation of backbones, augmentations and schedules on solar cells, in an hour or two; resumable
	$(PY) -m trainer.recipes.data.elpv $(ABLATION)-pictures --seed 1
	$(PY) -m shards pack $(ABLATION)-pictures $(ABLATION) --shard-bytes 4MiB
	$(PY) -m tune.run elpv elpv_ablation data=$(ABLATION) name=elpv-ablation epochs=8 image_size=128 \
	    'freeze=[conv_stem, bn1, blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, blocks.5]'

serve: $(STAMP)  ## keep an endpoint up with the demo's bundle
	$(PY) -m cluster.serve runs/demo/bundle

lint: $(STAMP)  ## ruff and mypy, changing nothing
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

fix: $(STAMP)  ## what ruff can mend, and its format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Two processes; what shares a module or the Ray cluster runs in one of them, in the order of its name.
PYTEST := $(PY) -m pytest -n 2 --no-loadscope-reorder

test: lint  ## all that CI runs
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)  ## what is too long for CI
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=thorough

audit: $(STAMP)  ## known vulnerabilities of the pinned packages; asks a service on the network, so CI does not run it
	.venv/bin/uv tool run pip-audit --disable-pip --no-deps -r constraints.txt

coverage: $(STAMP)  ## lines of the packages that the tests run, with those that they do not
	rm -f .coverage*
	$(PYTEST) -m "not slow" --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

bench: $(STAMP)  ## the benches that need minutes and no other environment; tests/bench/README.md has the rest
	$(PY) tests/bench/pack.py
	$(PY) tests/bench/feed.py --quick
	$(PY) tests/bench/step.py

docs: $(STAMP)  ## write the pages of docs/ that come from the code
	$(PY) infra/docs.py

clean:  ## remove the demo's data and runs
	rm -rf data runs
