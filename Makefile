# Everything a fresh machine needs is Python >= 3.10 with venv, make and git. `make demo` and `make test` do the rest.
PYTHON ?= python3
VENV   ?= .venv
PROMPT ?= a hamburger
BIN    := $(VENV)/bin
# torch comes first and pinned, so that the resolver has no reason to fetch another (and much larger) build of it.
TORCH  ?= torch==2.13.0

.PHONY: help demo studio test lint types format docs wheel clean

help:
	@echo "make demo    install, then turn PROMPT='$(PROMPT)' into a 3D object (some minutes on two cores)"
	@echo "make studio  install, then open the studio in the browser (Ctrl-C ends it)"
	@echo "make test    install with the development tools, then run the tests"
	@echo "make lint    ruff        make types   pyright        make format   ruff format"
	@echo "make docs    API reference from the docstrings, docs/api/index.html"
	@echo "make wheel   build dist/*.whl        make clean   remove the environment and all caches"

$(VENV)/torch.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python >= 3.10 is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	@touch $@

$(VENV)/run.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/run.stamp

# Optional: without it, the tests that ask the Khronos validator about our GLB files are skipped; the next `make test` tries again.
$(VENV)/validator.stamp: $(VENV)/dev.stamp
	@if command -v npm >/dev/null && npm install --silent --no-save --prefix $(VENV) gltf-validator@2.0.0-dev.3.10; \
	then touch $@; else echo "no glTF validator (npm): its tests will be skipped"; fi

$(VENV)/studio.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[studio]"
	@touch $@ $(VENV)/run.stamp

$(VENV)/docs.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@ $(VENV)/run.stamp

demo: $(VENV)/run.stamp
	@out="runs/demo-$$(date +%Y%m%d-%H%M%S)"; \
	$(BIN)/dreamfusion generate "$(PROMPT)" --out "$$out" && echo && echo "Open $$out/index.html in a browser."

studio: $(VENV)/studio.stamp
	$(BIN)/dreamfusion studio

# Bytecode is kept, whatever the environment says: the workers, and the processes that tests start, compile a file once.
test: $(VENV)/validator.stamp
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/pyright

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/docs.stamp
	$(BIN)/python -m pdoc --docformat markdown --math --output-directory docs/api dreamfusion

wheel: $(VENV)/dev.stamp
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist docs/api .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
