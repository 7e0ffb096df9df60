# Two commands do all the set-up: `make run` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The multimodal library is not used: without it llama.cpp compiles in half the time.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

.PHONY: run test check lint types layers tests soak bench vendor constraints browser lab clean

## run: make the environment, fetch the starter model, start the node and open its page
run: $(VENV)/.run
	$(BIN)/pares -q pull smollm2-135m-instruct
	$(BIN)/pares up

## test: make the environment and run the whole suite
test: $(VENV)/.dev browser lab tests

## check: what CI runs
check: $(VENV)/.dev browser lab lint types layers tests

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/pytest -m "not soak" -n 2 --dist loadfile

## soak: longer proofs
soak: $(VENV)/.dev browser lab
	$(BIN)/pytest -m soak --timeout 1800

## bench: the figures of docs/BENCHMARKS.md
bench: $(VENV)/.dev
	$(BIN)/pip install --quiet -e ".[bench]"
	$(BIN)/python bench/all.py

## vendor: fetch and bundle the page's libraries anew (maintainers; needs node and npm)
vendor:
	src/pares/web/vendor/vendor.sh

## constraints: write down the versions of this environment (maintainers; after the checks passed)
constraints:
	@head -n 2 constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable | grep -viE '^(xllamacpp|torch|-e)' >> constraints.new
	@mv constraints.new constraints.txt

## browser: the page's tests drive Debian's Chromium
browser:
	@test -x /usr/bin/chromium || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) \
		|| (echo "The page's tests need Chromium: install Debian's package 'chromium'." && exit 1)

## lab: the tests of routers and networks make their own, in namespaces
lab:
	@(command -v ip && command -v iptables) >/dev/null \
		|| (apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2 iptables) \
		|| (echo "The tests of networks need root and Debian's packages 'iproute2' and 'iptables'." && exit 1)

# uv is used where it is installed; plain pip does the same.
$(VENV)/.run: pyproject.toml
	@command -v uv >/dev/null && uv venv --quiet --allow-existing --seed $(VENV) || test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing. The first time llama.cpp is compiled for this machine's processor: 4 to 8 minutes on two cores."
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -e .; else $(BIN)/pip install --quiet -e .; fi
	@touch $@

$(VENV)/.dev: $(VENV)/.run constraints.txt
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"; \
		else $(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"; fi
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
