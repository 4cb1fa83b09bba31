# Two commands: `make lab` boots, provisions and verifies the lab; `make test` runs all tests except test-matrix.
# Both install missing apt packages on the host, and the Python packages in .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
TEST_TWIN := test
# The inventory of `make lab`. Its twin has the inventory's name, without dashes and cut to 12 characters.
DESIGN := lab
DESIGN_TWIN = $(shell printf '%.12s' '$(subst -,,$(DESIGN))')
NAMED = $(if $(filter-out lab,$(DESIGN_TWIN)), --name $(DESIGN_TWIN))

.PHONY: help
help: ## Show these targets
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
	@echo "==> Installing the packages of the tests into $(VENV)"
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.run

.PHONY: known-design
known-design:
	@[ -d inventories/$(DESIGN) ] || { echo "There is no inventories/$(DESIGN); the designs are: $(filter-out example,$(notdir $(wildcard inventories/*)))"; exit 1; }

.PHONY: lab
lab: root known-design host venv ## Boot the lab in the twin, provision it and verify it (some minutes the first time); DESIGN=vrf: another design
	@./twin up -i inventories/$(DESIGN) --name $(DESIGN_TWIN)
	@echo "==> Provisioning with site.yml"
	@./twin play --name $(DESIGN_TWIN) site.yml
	@echo "==> Verifying, with test packets"
	@./twin play --name $(DESIGN_TWIN) playbooks/verify.yml
	@./twin status --name $(DESIGN_TWIN)
	@echo
	@echo "The lab is up. Commands to try (. $(VENV)/bin/activate puts ansible-playbook in PATH):"
	@echo "  ./twin guest$(NAMED) vm1 -- ping -c 3 192.0.2.8                  # a guest reaches the Internet"
	@echo "  ./twin probe$(NAMED) vm1 vm3 --event 'cut hv2 a' --at 5           # 32 flows while path a fails; repair: ./twin heal$(NAMED) hv2 a"
	@echo "  ./twin status$(NAMED)                                        # the machines, and the addresses of the guests"
	@echo "  ansible-playbook$(if $(NAMED), -i inventories/$(DESIGN)) playbooks/plan.yml --limit hv1   # the plan of hv1, with reasons"
	@echo "  ./twin down$(NAMED)                                          # end the lab"

.PHONY: specs
specs: $(VENV)/.dev ## Write the argument specs of the roles from the plan's dataclasses
	@PYTHONPATH=src python -m l3hv.render.role_specs

.PHONY: lint
lint: $(VENV)/.dev ## Check style and types
	@ruff check . && ruff format --check .
	@mypy
	@yamllint -s .
	@ansible-lint -q

# Run a command while a lab is up, provisioned and verified.
with_the_lab = trap './twin down --name $(TEST_TWIN)' EXIT; \
	./twin up -i inventories/lab --name $(TEST_TWIN); \
	./twin play --name $(TEST_TWIN) site.yml; \
	./twin play --name $(TEST_TWIN) playbooks/verify.yml; \
	$(1)

PARTS := style images pure twin pairs fabric roles

.PHONY: test
test: root host $(VENV)/.dev ## Run all tests except test-matrix (boots its own twins, and does not change a running lab)
	@.ci/parts $(PARTS)

.PHONY: $(PARTS:%=test-%)
test-style: lint

test-pure: nftables $(VENV)/.dev ## Run the tests that need no running machine (other parts: test-twin, -pairs, -fabric, -roles)
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

# Every daemon with every other, and a whole run for each question: this takes longer than `make test`.
.PHONY: test-matrix
test-matrix: root host $(VENV)/.dev ## Test every routing daemon and design under failures (four hours on two cores)
	@$(call with_the_lab,L3HV_TWIN=$(TEST_TWIN) pytest -q -s -m 'fabric and matrix')
	@pytest -q -s -m 'matrix and not fabric'

.PHONY: test-attacks
test-attacks: root host $(VENV)/.dev ## Attack a running, provisioned lab (L3HV_TWIN names another twin)
	@pytest -q -m attacks

.PHONY: nftables
nftables: root
	@command -v nft >/dev/null || { echo "==> Installing on this host: nftables"; apt-get -qq update; \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nftables >/dev/null; }

.PHONY: bench-plan bench-dhcp bench-failover bench-run bench-filter bench-rejected bench-vrf
bench-plan: root venv ## Measure planning for 1,000 hypervisors with 100 guests each
	@$(BIN)/python bench/plan.py
bench-dhcp: root venv ## Measure the DHCP server (Kea) with 10,000 guests
	@$(BIN)/python bench/dhcp_server.py
bench-failover: root venv ## Measure the outages of failures on a running lab
	@L3HV_INVENTORY=$(CURDIR)/inventories/$(DESIGN) $(BIN)/python bench/failover.py --name $(DESIGN_TWIN)
bench-filter: root venv nftables ## Measure the packet filter: compared with plain bridges, and with 10 and 1,000 guests
	@$(BIN)/python bench/forwarding.py
	@$(BIN)/python bench/filter.py
bench-rejected: root host venv nftables ## Measure the designs that were rejected, compared with the chosen one
	@$(BIN)/python bench/rejected.py
bench-vrf: root host venv nftables ## Measure forwarding with VRFs, compared with policy rules
	@$(BIN)/python bench/vrf.py
bench-run: root venv ## Measure an unchanged site.yml, compared with Ansible's ping
	@$(BIN)/python bench/run_time.py

.PHONY: clean
clean: root ## Remove the machines, namespaces, mounts and processes of all twins, and build/
	@$(PYTHON) twin down --all
	@rm -rf build
