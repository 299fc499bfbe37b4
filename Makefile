# `make demo [BACKEND=file|etcd|consul|redis|postgres]` and `make test` do all of their own set-up on a machine with Python and make.
BACKEND ?= file
RUNS ?= 20
ROUNDS ?= 10
SEED ?= 1
HOURS ?= 0.5
SAMPLE ?= 400
DEMO ?=
VENV := .venv
PYTHON := $(VENV)/bin/python
export CLUSTER_LOCK_TOOLS ?= $(CURDIR)/.tools

.PHONY: chaos soak proof demo test test-newest model mutate lock servers lint soak-demo bench clean help

help:
	@echo 'make demo [BACKEND=file|etcd|consul|redis|postgres]   the show-piece, on a real server'
	@echo 'make test [TOX="-e etcd35"]            install the real servers, run everything'
	@echo 'make test-newest                       the same libraries as a user gets today: nothing locked'
	@echo 'make proof                             a part of all below, with other seeds each day: model, faults, hours'
	@echo 'make model [MODEL="lease sweep"]       check the model of the protocol (docs/model), and what each rule is for'
	@echo 'make mutate [SAMPLE=400] [SEED=1] [JOBS=2]   change the core in places that a seed chooses: do the tests fail?'
	@echo 'make lock                              lock today'"'"'s releases in requirements/, for all of these'
	@echo 'make servers                           install etcd, consul, redis and postgres into .tools'
	@echo 'scripts/shape                          how large, how deep, how tangled the code is, and the limits'
	@echo 'make chaos [BACKEND=etcd35] [ROUNDS=10] [SEED=1]   rounds of faults (tests/chaos/README.md), also on'
	@echo '                                       etcd34, consul, redis, postgres18, postgres15, file'
	@echo 'make soak [BACKEND=etcd35] [HOURS=0.5]  hand-overs under traffic, again and again: nothing may grow'
	@echo 'make lint | soak-demo [RUNS=20] | bench | clean'

PIP := -m pip install -qq --disable-pip-version-check

# Made anew when the dependencies change. All of it is locked, and so is what builds it.
$(VENV)/installed: pyproject.toml requirements/build.txt requirements/demo.txt
	"$$(scripts/find-python)" -m venv --clear $(VENV)
	$(PYTHON) $(PIP) --require-hashes -r requirements/build.txt
	$(PYTHON) $(PIP) --require-hashes --no-build-isolation -r requirements/demo.txt
	$(PYTHON) $(PIP) --no-index --no-deps --no-build-isolation -e .
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

proof:
	scripts/run-tests -e proof

model:
	"$$(scripts/find-python)" scripts/model $(MODEL)

# Of its own, since cosmic-ray and what it needs are of no use to anything else. The results are kept beside it.
MUTATE := .mutate/venv
$(MUTATE)/installed: requirements/build.txt requirements/mutate.txt
	"$$(scripts/find-python)" -m venv --clear $(MUTATE)
	$(MUTATE)/bin/python $(PIP) --require-hashes -r requirements/build.txt
	$(MUTATE)/bin/python $(PIP) --require-hashes --no-build-isolation -r requirements/mutate.txt
	touch $@

mutate: $(MUTATE)/installed
	PYTHONPATH=.:tests $(MUTATE)/bin/python -m mutate --sample $(SAMPLE) --seed $(SEED) $(if $(JOBS),--jobs $(JOBS))

lock:
	scripts/lock

servers:
	scripts/install-servers etcd consul redis postgres

lint:
	scripts/run-tests -e lint,typing

bench: $(VENV)/installed servers
	$(PYTHON) -m benchmarks

# In the environment of the demo: root, iproute2, iptables and the servers are all that they need besides. Without
# the model checker no history is replayed, and it says so.
chaos soak: BACKEND = etcd35
soak: $(VENV)/installed servers
	PYTHONPATH=.:tests $(PYTHON) -m chaos.soak --backend $(BACKEND) --hours $(HOURS)

chaos: $(VENV)/installed servers
	-scripts/install-servers model
	PYTHONPATH=.:tests $(PYTHON) -m chaos --backend $(BACKEND) --rounds $(ROUNDS) --seed $(SEED)

clean:
	rm -rf $(VENV) $(MUTATE) .tox .junit .mypy_cache .pytest_cache .ruff_cache build dist
