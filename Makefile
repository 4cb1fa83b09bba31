# Two commands: `make lab` brings the fabric up and proves it, `make test` runs every test.
# Everything the host lacks is installed on the way (apt packages, a virtualenv in .venv).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
TEST_TWIN := test

.PHONY: help
help: ## Show what can be done
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "The twin makes namespaces and containers: run this as root (sudo make ...)."; exit 1; }

.PHONY: host
host: root
	@command -v $(PYTHON) >/dev/null || { echo "==> Installing on this host: python3"; apt-get -qq update; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 >/dev/null; }
	@missing=$$(for package in python3-venv $$($(PYTHON) twin packages); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    echo "==> Installing on this host:" $$missing; \
	    apt-get -qq update; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	fi

$(VENV)/.run: requirements.txt | host
	@echo "==> Installing the pinned Python packages into $(VENV)"
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "==> Installing what the tests need into $(VENV)"
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.run

.PHONY: lab
lab: root host venv ## Boot the lab in the twin, provision it, verify it (first time: some minutes)
	@./twin up -i inventories/lab
	@echo "==> Provisioning with site.yml"
	@ansible-playbook site.yml
	@echo "==> Verifying, packets included"
	@ansible-playbook playbooks/verify.yml
	@./twin status
	@echo
	@echo "The fabric stands. Try next (. $(VENV)/bin/activate brings ansible-playbook into the path):"
	@echo "  ./twin guest vm1 -- ping -c 3 192.0.2.8                  # a guest reaches the Internet"
	@echo "  ./twin probe vm1 vm3 --event 'cut hv2 a' --at 5           # 32 flows while a path dies; ./twin heal hv2 a"
	@echo "  ansible-playbook playbooks/plan.yml --limit hv1           # what hv1 becomes, and why"

.PHONY: specs
specs: $(VENV)/.dev ## Write the argument specs of the roles anew, from the plan's dataclasses
	@PYTHONPATH=src python -m l3hv.render.role_specs

.PHONY: lint
lint: $(VENV)/.dev ## Check style and types
	@ruff check . && ruff format --check .
	@mypy
	@yamllint -s .
	@ansible-lint -q

# Run a command while the lab stands, provisioned and verified.
with_the_lab = trap './twin down --name $(TEST_TWIN)' EXIT; \
	./twin up -i inventories/lab --name $(TEST_TWIN); \
	./twin play --name $(TEST_TWIN) site.yml; \
	./twin play --name $(TEST_TWIN) playbooks/verify.yml; \
	$(1)

PARTS := style images pure twin pairs fabric roles

.PHONY: test
test: root host $(VENV)/.dev ## Run every test but the matrix (boots twins of its own; a standing lab is left alone)
	@.ci/parts $(PARTS)

.PHONY: $(PARTS:%=test-%)
test-style: lint

test-pure: $(VENV)/.dev ## Run the tests without machines (the others of make test: test-twin -pairs -fabric -roles)
	@pytest -n 3 --dist worksteal -q -m 'not twin and not fabric'

test-images: root host $(VENV)/.dev
	@./twin image --all

test-twin: root host $(VENV)/.dev
	@pytest -q -m 'twin and not matrix and not pairs'

test-pairs: root host $(VENV)/.dev
	@pytest -q -m 'pairs and not matrix'

test-fabric: root host $(VENV)/.dev
	@$(call with_the_lab,L3HV_TWIN=$(TEST_TWIN) pytest -q -m 'fabric and not matrix')

test-roles: root host $(VENV)/.dev
	@molecule test --all

# Every daemon against every other, and whole runs for one question each: this takes longer than all of the above.
.PHONY: test-matrix
test-matrix: root host $(VENV)/.dev ## Test every routing daemon under every failure profile (takes minutes)
	@$(call with_the_lab,L3HV_TWIN=$(TEST_TWIN) pytest -q -s -m 'fabric and matrix')
	@pytest -q -s -m 'matrix and not fabric'

.PHONY: test-attacks
test-attacks: root host $(VENV)/.dev ## Attack a standing, provisioned lab (L3HV_TWIN names another twin)
	@pytest -q -m attacks

.PHONY: bench-plan bench-failover bench-run bench-filter
bench-plan: root venv ## Measure planning for 1,000 hypervisors with 100 guests each
	@$(BIN)/python bench/plan.py
bench-failover: root venv ## Measure failures on a standing lab
	@$(BIN)/python bench/failover.py
bench-filter: root venv ## Measure the packet filter: against a plain bridge, and with 10 and 1,000 guests
	@command -v nft >/dev/null || { echo "==> Installing on this host: nftables"; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nftables >/dev/null; }
	@$(BIN)/python bench/forwarding.py
	@$(BIN)/python bench/filter.py
bench-run: root venv ## Measure an unchanged site.yml against ansible's ping
	@$(BIN)/python bench/run_time.py

.PHONY: clean
clean: root ## Leave no machine, namespace, mount or process of any twin behind
	@$(PYTHON) twin down --all
	@rm -rf build
