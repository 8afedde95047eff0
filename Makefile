# make demo: sentences to videos with the shipped checkpoint. make test: lint and tests.
# Both install what they need into .venv first. PYTHON names the interpreter, 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test

demo: .venv/installed
	$(BIN)/python inference_batch.py --prompts assets/demo_prompts.txt --out-dir outputs/demo --overwrite true

test: .venv/installed-dev .venv/outside-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.venv/installed: requirements.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

# A browser and the glTF validator, where they can be had: without them their tests are skipped.
.venv/outside-tools: .venv/installed-dev
	command -v chromium || command -v google-chrome || { test "$$(id -u)" = 0 && timeout 600 sh -c \
	  "apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium" > /dev/null 2>&1; } \
	  || echo "Chromium could not be installed; the tests in a browser will be skipped"
	timeout 300 npm install --silent --no-save --prefix .venv/npm gltf-validator@2.0.0-dev.3.10 > /dev/null 2>&1 \
	  || echo "npm could not install gltf-validator; its test will be skipped"
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
