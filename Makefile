# The verbs of this project; each builds what it needs in $(VENV).

VENV ?= .venv
PYTHON ?= $(shell for name in python3 python3.15 python3.14 python3.13 \
	python3.12 python3.11; do $$name -c 'import sys; \
	sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	command -v $$name && break; done)
APP ?= fasthttp.demo:app
ARGS ?=

PY := $(VENV)/bin/python
PYTEST := -m pytest --numprocesses 2 --dist loadfile
PIP := $(PY) -m pip --disable-pip-version-check --quiet install
SOURCES := setup.py $(wildcard fasthttp/*.pyx fasthttp/*.pxd fasthttp/*.h)
CYTHON := $(wildcard fasthttp/*.pyx fasthttp/*.pxd fuzz/*.pyx)
STUBS := $(patsubst fasthttp/%.pyi,fasthttp.%,$(wildcard fasthttp/*.pyi))
WHEEL := build/wheel
HINT := { echo "fasthttp needs Python 3.11 or later with venv and headers," \
	"and a C compiler. Debian: apt install gcc python3-dev python3-venv" \
	>&2; exit 1; }

define REQUIREMENTS
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
groups = project["project"]["optional-dependencies"]
groups["build"] = project["build-system"]["requires"]
print(*groups[sys.argv[1]], sep="\n")
endef
export REQUIREMENTS
export PIP_USER := 0
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV

.PHONY: run test test-all check bench micro figures fuzz sanitize \
	soak wheel clean

run: $(VENV)/.compiled
	@exec $(PY) -m fasthttp $(ARGS) $(APP)

test: $(VENV)/.compiled $(VENV)/.test
	@sh tests/install-tools.sh
	$(PY) $(PYTEST) $(ARGS)

test-all:
	@for minor in 11 12 13 14 15; do for python in python3.$$minor \
	"$$HOME"/.pyenv/versions/3.$$minor.*/bin/python; do \
	$$python -c "import sys; sys.exit(sys.version_info[1] != $$minor)" \
	2>/dev/null || continue; echo "== $$python"; \
	$(MAKE) test PYTHON=$$python VENV=.venv-3.$$minor || exit 1; \
	break; done; done

check: $(VENV)/.compiled $(VENV)/.test $(VENV)/.dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint $(CYTHON)
	$(PY) -m mypy
	$(PY) -m mypy.stubtest $(STUBS)
	$(PY) -m pytest --quiet tests/test_layers.py
	@sh tests/install-tools.sh valgrind
	PYTHONPATH=. $(PY) bench/instructions.py

bench: wheel
	@sh tests/install-tools.sh wrk nginx ev.h
	PYTHONPATH="$(CURDIR)/$(WHEEL)" $(PY) bench/compare.py $(ARGS)

micro: wheel $(VENV)/.bench
	PYTHONPATH="$(CURDIR)/$(WHEEL)" $(VENV)/bin/pytest --quiet \
	-o pythonpath= bench/test_micro.py $(ARGS)
	PYTHONPATH="$(CURDIR)/$(WHEEL)" $(PY) bench/interleaved.py

figures: bench
	@$(MAKE) micro ARGS=--benchmark-json=.bench/results/micro.json
	$(PY) bench/report.py --publish

fuzz: $(VENV)/.test
	$(PY) -m fuzz $(ARGS)

sanitize: $(VENV)/.test
	@rm -rf build/sanitize
	@mkdir -p build/sanitize
	@tar -c --exclude='*.so' --exclude=__pycache__ --exclude='./.*' \
	--exclude=./build . | tar -x -C build/sanitize
	cd build/sanitize && FASTHTTP_SANITIZE=1 "$(abspath $(PY))" setup.py \
	--quiet build_ext --inplace
	@# curl hangs with the sanitizer's library loaded into it.
	@mkdir build/sanitize/bin
	@printf '#!/bin/sh\nunset LD_PRELOAD\nexec %s "$$@"\n' \
	"$$(command -v curl)" > build/sanitize/bin/curl
	@chmod +x build/sanitize/bin/curl
	@# What was freed is kept from use for a while, by default 256 MB of it,
	@# which looks like a leak. Two tests cannot hold: each block has a
	@# margin around it, and a clock loaded in front breaks the sanitizer's
	@# start.
	cd build/sanitize && PATH="$$PWD/bin:$$PATH" \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) \
	$$($(CC) -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=8 \
	UBSAN_OPTIONS=print_stacktrace=1 "$(abspath $(PY))" $(PYTEST) \
	--deselect tests/test_faults.py::test_an_idle_connection_costs_little \
	--deselect tests/test_faults.py::test_a_clock_that_jumps $(ARGS)

soak: $(VENV)/.compiled $(VENV)/.test
	$(PY) bench/soak.py $(ARGS)
	PYTHONPATH=tests $(PY) -m bench.through_proxies

wheel: $(WHEEL)/.installed

clean:
	rm -rf .venv .venv-3.* build dist *.egg-info fasthttp/*.so fasthttp/*.c

$(VENV)/.created:
	@command -v $(CC) >/dev/null && "$(PYTHON)" -c "import ensurepip, os, \
	sysconfig; os.stat(sysconfig.get_path('include') + '/Python.h')" \
	2>/dev/null || $(HINT)
	@echo "creating $(VENV) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(addprefix $(VENV)/.,build test dev bench): $(VENV)/.%: pyproject.toml \
		$(VENV)/.created
	@echo "installing what $* needs"
	@$(PY) -c "$$REQUIREMENTS" $* | xargs $(PIP)
	@touch $@

$(VENV)/.compiled: $(SOURCES) $(VENV)/.build
	@echo "compiling"
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# Compiled twice: for a training, then for what was learned in it. What is in
# the wheel is unpacked for the benchmarks.
$(WHEEL)/.installed: $(SOURCES) $(wildcard fasthttp/*.py fasthttp/*.pyi) \
		$(addprefix bench/,train.py cases.py protocols.py) \
		$(VENV)/.build $(VENV)/.dev
	@rm -rf build/lib* build/temp* build/training $(WHEEL) dist
	@echo "compiling for the training"
	@FASTHTTP_PROFILE=record $(PY) setup.py --quiet build \
	--build-lib build/training
	@PYTHONPATH=build/training $(PY) bench/train.py
	@echo "compiling what was trained"
	@FASTHTTP_PROFILE=use $(PY) -m build --quiet --no-isolation --sdist \
	--wheel
	@$(PIP) --no-deps --target $(WHEEL) dist/*.whl
	@# Or the next build in place would take its modules from there.
	@rm -rf build/lib* build/temp* build/training
	@touch $@
