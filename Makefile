# make demo: install and see it work.  make test: install and check everything.  make docs: the site, in build/docs.
# make dist: after make install, the archives of a release, in dist. Two builds of a commit are equal.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile --durations 15

.PHONY: demo test coverage docs dist install clean

install: $(VENV)/.installed

# compat: also found from the clone's parent folder, where a folder of the package's name lies.
# torch first and alone, from the constraints: a range would let pip choose another build.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.version_info < (3, 11) and sys.exit('error: make needs Python 3.11 or later, got %d.%d: run make PYTHON=python3.12 demo, or use pip install, which takes 3.10' % sys.version_info[:2])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet -c constraints.txt --config-settings editable_mode=compat -e '.[test]'
	touch $@

# Threads that wait for each other hold a core for some microseconds only, and then sleep. By
# default they hold it for milliseconds, in which other programs on a busy machine do not run.
demo: install
	GOMP_SPINCOUNT=10000 $(BIN)/python examples/demo.py --out runs/demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# Apart from the tests, because tracing each line takes as long as the tests themselves.
coverage: install
	$(PYTEST) --cov --cov-report=term

docs: install
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs
	@echo "built: build/docs/index.html"

# Pack the source archive again, because setuptools stores this machine's file times and modes in it.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
dist:
	@test -n "$$SOURCE_DATE_EPOCH" || { echo "error: expected a git clone, or SOURCE_DATE_EPOCH"; exit 1; }
	@test -z "$$(git status --porcelain)" || { echo "error: expected a clone without changes or new files: see git status"; exit 1; }
	@tar --version | grep -q "GNU tar" || { echo "error: expected GNU tar as tar"; exit 1; }
	rm -rf dist build/sdist && mkdir -p build/sdist
	$(BIN)/python -m build --sdist
	tar -xzf dist/*.tar.gz -C build/sdist && chmod -R u=rwX,go=rX build/sdist
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$$SOURCE_DATE_EPOCH \
		-C build/sdist -cf build/sdist.tar $$(ls build/sdist)
	gzip -nc build/sdist.tar > $$(echo dist/*.tar.gz)
	umask 022 && $(BIN)/python -m build --wheel --outdir dist build/sdist/*

clean:
	rm -rf $(VENV) build docs/api docs/tutorials .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
