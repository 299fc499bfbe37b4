# `make demo [BACKEND=file|etcd|consul|redis|postgres]` and `make test` do all of their own set-up on a machine with Python and make.
BACKEND ?= file
RUNS ?= 20
ROUNDS ?= 10
SEED ?= 1
DEMO ?=
VENV := .venv
PYTHON := $(VENV)/bin/python
export CLUSTER_LOCK_TOOLS ?= $(CURDIR)/.tools

.PHONY: chaos demo test test-newest model lock servers lint soak-demo bench clean help

help:
	@echo 'make demo [BACKEND=file|etcd|consul|redis|postgres]   the show-piece, on a real server'
	@echo 'make test [TOX="-e etcd35"]            install the real servers, run everything'
	@echo 'make test-newest                       the same libraries as a user gets today: nothing locked'
	@echo 'make model [MODEL="lease sweep"]       check the model of the protocol (docs/model), and what each rule is for'
	@echo 'make lock                              lock today'"'"'s releases in requirements/, for all of these'
	@echo 'make servers                           install etcd, consul, redis and postgres into .tools'
	@echo 'scripts/shape                          how large, how deep, how tangled the code is, and the limits'
	@echo 'make chaos [BACKEND=etcd35] [ROUNDS=10] [SEED=1]   rounds of faults (tests/chaos/README.md), also on'
	@echo '                                       etcd34, consul, redis, postgres18, postgres15, file'
	@echo 'make lint | soak-demo [RUNS=20] | bench | clean'

PIP := $(PYTHON) -m pip install -qq --disable-pip-version-check

# Made anew when the dependencies change. All of it is locked, and so is what builds it.
$(VENV)/installed: pyproject.toml requirements/build.txt requirements/demo.txt
	"$$(scripts/find-python)" -m venv --clear $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/demo.txt
	$(PIP) --no-index --no-deps --no-build-isolation -e .
	touch $@

.PHONY: server-file server-etcd server-consul server-redis server-postgres
server-file:
server-etcd server-consul server-redis server-postgres: server-%:
	scripts/install-servers $*

demo: $(VENV)/installed server-$(BACKEND)
	$(PYTHON) -m bot demo --backend $(BACKEND) $(DEMO)

soak-demo: $(VENV)/installed server-etcd server-consul server-redis server-postgres
	for backend in file etcd consul redis postgres; do \
		for run in $$(seq $(RUNS)); do \
			echo "$$backend: run $$run of $(RUNS)"; \
			$(PYTHON) -m bot demo --backend $$backend --json $(DEMO) || exit 1; \
		done; \
	done

test:
	scripts/run-tests $(TOX)

test-newest:
	scripts/run-tests -e newest

model:
	"$$(scripts/find-python)" scripts/model $(MODEL)

lock:
	scripts/lock

servers:
	scripts/install-servers etcd consul redis postgres

lint:
	scripts/run-tests -e lint,typing

bench: $(VENV)/installed server-etcd server-consul
	$(PYTHON) -m benchmarks

# In the environment of the demo: root, iproute2, iptables and the servers are all that it needs besides.
chaos: BACKEND = etcd35
chaos: $(VENV)/installed servers
	PYTHONPATH=.:tests $(PYTHON) -m chaos --backend $(BACKEND) --rounds $(ROUNDS) --seed $(SEED)

clean:
	rm -rf $(VENV) .tox .junit .mypy_cache .pytest_cache .ruff_cache build dist
