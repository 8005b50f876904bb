# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3.11
VENV ?= .venv
DEMO_DIR ?= build/demo
REAL_DATA ?= $(or $(FCNSEG_REAL_DATA),../shared/data)
IMAGE ?= $(REAL_DATA)/abdomen_ct_sm/ct.nii.gz
LABEL ?= $(REAL_DATA)/abdomen_ct_sm/label.nii.gz
# The one that is deployed.
TFSERVING_IMAGE ?= $(shell sed -n 's/^FROM //p' serving/deployment/Dockerfile)
# A Python that has PyTorch, to compare with.
PEER_PYTHON ?=
LABEL_MAP ?= $(REAL_DATA)/organs7.yaml
READY := $(VENV)/ready
# setuptools prints a warning on every editable installation.
EDITABLE := PYTHONWARNINGS=ignore
# The old line: tensorflow-addons runs on TensorFlow 2.15 alone, which has no wheel after Python 3.11.
OLD_VENV := .venv-addons
OLD_READY := $(OLD_VENV)/ready
OLD_RUN := $(OLD_VENV)/bin/python
# What was right in its day, Python's and numpy's newer versions deprecate.
OLD_WARNINGS := -W ignore::DeprecationWarning
# The slow ones of what only that line has, and of what crosses between the lines.
OLD_SLOW_TESTS := tests/test_addons.py tests/test_two_lines.py
RUN := $(VENV)/bin/python
# With ADDONS=1 the demo runs on the old line.
DEMO_READY := $(if $(ADDONS),$(OLD_READY),$(READY))
DEMO := $(if $(ADDONS),$(OLD_RUN),$(RUN)) -m examples.demo
# Older runtimes that an export must load in; the last that a server of that age has.
OLD_RUNTIMES := 2.16.2 2.20.0
OLD_RUNTIMES_READY := $(OLD_RUNTIMES:%=.venv-tf-%/ready)
# Three files of tests at a time, on two cores, since many wait for processes; each in one process, as its fixtures are
# shared. A crash ends the run, with its test.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# The same for the tests of one file.
PARALLEL_TESTS := --numprocesses 2 --dist load --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help setup setup-old demo demo-real test test-slow test-addons test-addons-fast test-old-runtimes verify-docker \
	lint types docs format gpu-check clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make the virtual environment with everything in it

setup-old: $(OLD_READY) $(OLD_RUNTIMES_READY)  ## Make those of the old line and of older runtimes

$(READY): setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(EDITABLE) $(RUN) -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(DEMO_READY)  ## From phantoms to a served mask, with pictures, into DEMO_DIR; ADDONS=1 on the old line
	$(DEMO) --output $(DEMO_DIR)

demo-real: $(DEMO_READY)  ## The same on one real scan: IMAGE, LABEL, LABEL_MAP, DEMO_DIR
	$(DEMO) --output $(DEMO_DIR) --image $(IMAGE) --label $(LABEL) --label_map $(LABEL_MAP)

test: $(READY)  ## The fast tests
	$(RUN) -m pytest -q $(PARALLEL)

test-slow: $(READY)  ## The rest of the tests but those that need a GPU
	$(RUN) -m pytest -q $(PARALLEL) -m "(slow or serving) and not gpu and not old_runtime"

verify-docker: $(READY)  ## Requests and exports on the real server: TFSERVING_IMAGE, where Docker is
	FCNSEG_TFSERVING_IMAGE=$(TFSERVING_IMAGE) $(RUN) -m pytest -q -m "not serving" \
		tests/test_serving_conformance.py tests/test_served_exports.py

test-addons-fast: $(OLD_READY)  ## The fast tests on the old line, and its killed runs
	$(OLD_RUN) -m pytest -q $(PARALLEL) $(OLD_WARNINGS)
	$(OLD_RUN) -m pytest -q $(PARALLEL_TESTS) $(OLD_WARNINGS) -m slow tests/test_addons.py -k killed

test-addons: test-addons-fast  ## Those, what is slow on the old line alone, and the slow ones of tensorflow-addons
	$(OLD_RUN) -m pytest -q $(PARALLEL) $(OLD_WARNINGS) -m slow_on_the_old_line
	$(OLD_RUN) -m pytest -q $(PARALLEL) $(OLD_WARNINGS) -m slow $(OLD_SLOW_TESTS)

$(OLD_READY): setup.cfg setup.py
	$(PYTHON) -m venv $(OLD_VENV)
	$(OLD_RUN) -m pip install --quiet --upgrade pip
	$(EDITABLE) $(OLD_RUN) -m pip install --quiet --editable '.[addons,pipelines,dicom,s3,test]'
	touch $@

test-old-runtimes: $(READY) $(OLD_RUNTIMES_READY)  ## Exports, loaded and compared in older TensorFlow
	FCNSEG_OLD_RUNTIMES="$(OLD_RUNTIMES:%=$(CURDIR)/.venv-tf-%/bin/python)" \
		$(RUN) -m pytest -q $(PARALLEL_TESTS) -m old_runtime tests/test_old_runtimes.py

.venv-tf-%/ready:
	$(PYTHON) -m venv .venv-tf-$*
	.venv-tf-$*/bin/python -m pip install --quiet tensorflow-cpu==$*
	$(EDITABLE) .venv-tf-$*/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

lint: $(READY)  ## Style of code
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(READY)  ## Static types
	$(RUN) -m mypy

docs: $(READY)  ## The pages and the API reference as a site, in build/docs
	$(RUN) -m sphinx -q -W --keep-going -b html docs build/docs

format: $(READY)  ## Put the code into the one format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

gpu-check: $(READY)  ## What the GPU of this machine does: speed, memory, resume, export; PEER_PYTHON for PyTorch
	$(RUN) benchmarks/bench_gpu.py $(if $(PEER_PYTHON),--peer_python $(PEER_PYTHON))

clean:  ## Remove what was built; the virtual environment stays
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
