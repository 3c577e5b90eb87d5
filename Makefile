# Each target does all of its own set-up, in .venv beside this file, and works again when called again.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOT ?= .tidemill

# Of `make images`: which images, their registry (with a slash at the end) and their tag.
IMAGES ?= cpu gpu
REGISTRY ?=
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' tidemill/version.py)
TAG ?= $(VERSION)
COMMIT := $(shell git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null || echo unknown)

.PHONY: demo images test-fast test test-all coverage lint format compile lock clean

demo: $(READY)  ## Trains, evaluates and publishes a model of real flights, and predicts a batch with it.
	$(BIN)/tidemill run examples/flights/experiment.yaml --root $(ROOT)
	$(BIN)/tidemill run examples/flights/experiment.yaml --root $(ROOT) --pipeline batch_predict

images: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null)
images: $(IMAGES:%=image-%)  ## Builds the images that the steps run in.

image-%:
	docker build --file images/$*/Dockerfile --tag $(REGISTRY)tidemill-python-$*:$(TAG) \
	  --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) .

test-fast: $(READY)  ## The tests that need no framework and no other process: below two minutes.
	$(BIN)/python -m pytest -m "unit and not full"

test: lint  ## What CI runs: everything but the tests marked `full`.
	$(BIN)/tidemill compile --check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full"

test-all: lint  ## All tests: Beam beside its recorded outputs, TensorFlow Transform's whole suite, newly drawn examples.
	$(BIN)/tidemill compile --check
	TIDEMILL_EXAMPLES=new $(BIN)/python -m pytest -n 2 --dist loadfile

coverage: export COVERAGE_PROCESS_START := $(CURDIR)/tests/coverage.rc
coverage: export COVERAGE_FILE := $(CURDIR)/.coverage/data
coverage: $(READY)  ## Branch coverage of tidemill/, and which test runs which line, for `python -m tests.mutation`.
	rm -rf .coverage
	mkdir .coverage
	$(BIN)/python -m coverage run --rcfile tests/coverage.rc -m pytest -p tests.mutation.recording -m "not full" $(TESTS)
	$(BIN)/python -m coverage combine --quiet --rcfile tests/coverage.rc
	$(BIN)/python -m coverage report --rcfile tests/coverage.rc

lint: $(READY)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compile: $(READY)  ## Writes the compiled YAMLs and the generated tables of the READMEs.
	$(BIN)/tidemill compile

lock: $(READY)  ## Resolves setup.cfg anew into requirements.lock, and the images' part of it into theirs.
	$(BIN)/uv pip compile setup.cfg --all-extras --no-header --no-emit-index-url --no-annotate --python-version 3.11 --output-file requirements.lock
	for image in cpu gpu; do \
	  $(BIN)/uv pip compile setup.cfg images/$$image/requirements.in --override images/$$image/overrides.txt \
	    --constraint requirements.lock --extra steps --extra beam --extra jax --extra examples \
	    --no-header --no-emit-index-url --no-annotate --python-version 3.11 \
	    --output-file images/$$image/requirements.lock || exit 1; \
	done

$(READY): requirements.lock setup.cfg setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.8
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python uv==0.13.8
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	# Compiled bytecode halves the import of TensorFlow. Some packages ship templates that do not compile: hence the ||.
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib || true
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
