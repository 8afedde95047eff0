# make demo     write motions, videos, a gallery and a contact sheet of the demo prompts, from the shipped checkpoint
# make test     run the linters and the tests
# make gpu      run the tests that need a GPU, and measure speed and memory on it
# make lint     check style, formatting and types
# make fuzz     read 10,000 changed inputs with every reader; report those that are neither read nor refused
# make format   fix style and formatting
# make addon    write the Blender add-on, outputs/text_to_motion.zip
# make browser  install Chromium, the glTF validator and axe-core, which some tests need
# make test-blender  install Blender 5.0 as a Python module (400 MB, Python 3.11) and run the tests that need it
# make lock     pin all packages with hashes in requirements.lock and requirements-dev.lock
#
# Python packages are installed into .venv first: those of the lock files on the platform that they are made for, and
# those of requirements.txt elsewhere. PYTHON is the interpreter to use, 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
LOCKED := CPython 3.11 Linux x86_64
PLATFORM := $(shell $(PYTHON) -c "import platform as p; print(p.python_implementation(), p.python_version()[:4], p.system(), p.machine())")
REQUIREMENTS := $(if $(findstring $(LOCKED),$(PLATFORM)),lock,txt)
NPM := .venv/npm/node_modules
VALIDATOR := $(NPM)/gltf-validator
AXE := $(NPM)/axe-core

BLENDER := .venv/blender

.PHONY: addon browser chromium demo format fuzz gpu lint lock test test-blender

demo: .venv/installed
	$(BIN)/python inference_batch.py --prompts assets/demo_prompts.txt --out-dir outputs/demo --overwrite \
	  --save npz,mp4,html,sheet

test: lint
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null \
	  || echo "tests/test_browser.py will be skipped: Chromium is not installed; make browser installs it"
	@test -d $(VALIDATOR) \
	  || echo "one test of tests/test_export.py will be skipped: the glTF validator is not installed; make browser installs it"
	@test -d $(AXE) \
	  || echo "one test of tests/serving/test_accessible.py will be skipped: axe-core is not installed; make browser installs it"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

gpu: .venv/installed-dev
	@$(BIN)/python -m pytest tests/gpu; status=$$?; \
	  $(BIN)/python -m benchmarks.gpu && exit $$status

fuzz: .venv/installed-dev
	$(BIN)/python tests/fuzz --count 10000

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

addon:
	mkdir -p outputs
	cd blender/text_to_motion && $(PYTHON) -m zipfile -c ../../outputs/text_to_motion.zip *.py *.toml

test-blender: .venv/installed-dev $(BLENDER)/installed
	BLENDER=$(CURDIR)/$(BLENDER)/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/blender

$(BLENDER)/installed:
	$(BIN)/python -m venv $(BLENDER)
	$(BLENDER)/bin/python -m pip install --quiet bpy==5.0.1
	touch $@

browser: chromium $(NPM)/installed

chromium:
	@command -v chromium || command -v google-chrome || timeout 600 sh -c \
	  "apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null" \
	  || { echo "Chromium was not installed; apt-get needs root and a network"; exit 1; }

$(NPM)/installed:
	timeout 300 npm install --silent --no-save --prefix .venv/npm gltf-validator@2.0.0-dev.3.10 axe-core@4.14.1
	touch $@

lock:
	for name in requirements requirements-dev; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --custom-compile-command "make lock" $$name.txt --output-file $$name.lock || exit 2; \
	done

.venv/installed: requirements.txt requirements.lock
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.$(REQUIREMENTS)
	touch $@

.venv/installed-dev: requirements-dev.txt requirements-dev.lock .venv/installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.$(REQUIREMENTS)
	touch $@
