# `make reproduce` and `make test` each do all the set-up that is missing.
PYTHON ?= python3
PROFILE ?= quick
EXPERIMENT ?= fusion_operators
RUN := .venv/bin/
ARGS ?=
N ?= 1000
SEED ?= 0
BENCH ?= outputs/bench.json

.PHONY: setup test fuzz trust lint audit reproduce reproduce-check sweep bench docs clean help
.DEFAULT_GOAL := help

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(RUN)python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	touch .venv/ready

setup: .venv/ready  ## make the environment in .venv

test: .venv/ready  ## run the tests
	$(RUN)python -m pytest -n 2 --dist worksteal $(ARGS)

fuzz: .venv/ready  ## feed nasty and damaged input to everything that reads (N examples each, from SEED)
	FUZZ_EXAMPLES=$(N) $(RUN)python -m pytest -n 2 tests/fuzz --hypothesis-seed=$(SEED) $(ARGS)

trust: .venv/ready  ## damage every file, kill every command, fill disks: an hour or two; prints counts
	TRUST_POSITIONS=24 TRUST_KILLS=200 TRUST_JOBS=300 $(RUN)python -m pytest -n 0 -s tests/trust $(ARGS)

lint: .venv/ready  ## check style and types
	$(RUN)ruff check . && $(RUN)ruff format --check . && $(RUN)basedpyright

audit: .venv/ready  ## look the tested versions up among known vulnerabilities (needs the network)
	.ci/audit

reproduce: .venv/ready  ## run the comparison and open-able report (PROFILE=quick, full or paper)
	$(RUN)layerfusion reproduce reproduce=$(PROFILE) $(ARGS)

reproduce-check: .venv/ready  ## run what docs/results/PROFILE.json was made with, and compare (quick or full)
	$(RUN)layerfusion reproduce check=docs/results/$(PROFILE).json $(ARGS)

sweep: .venv/ready  ## run an experiment (EXPERIMENT=fusion_operators, model_pairs, model_count or few_shot)
	$(RUN)layerfusion train -m experiment=$(EXPERIMENT) $(ARGS)

bench: .venv/ready  ## measure speed against others in the same run, and keep every figure in outputs/bench.json
	$(RUN)python -m benchmarks.extraction --json $(BENCH) && $(RUN)python -m benchmarks.device --json $(BENCH:.json=_gpu.json) && $(RUN)python -m benchmarks.probes --json $(BENCH) && $(RUN)python -m benchmarks.heads --json $(BENCH) && $(RUN)python -m benchmarks.sweep --json $(BENCH)

docs: .venv/ready  ## make docs/settings.md and the site, outputs/site/index.html; fails on a dead link
	$(RUN)python docs/site/settings.py && $(RUN)python docs/site/build.py

clean:  ## remove the environment and what runs wrote, the cache included
	rm -rf .venv outputs/*

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 12
