# The commands of this checkout; `make` alone lists them. PYTHON=python3.12 chooses another Python, INVENTORY=path another inventory.

PYTHON ?= python3
INVENTORY ?= inventory/local

VENV := .venv
PLAYBOOK := $(VENV)/bin/ansible-playbook -i $(INVENTORY) $(ARGS)

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export LC_ALL := C.UTF-8
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.demo ## Start the five systems on this machine and prove that each works
	@$(PLAYBOOK) playbooks/site.yml

.PHONY: verify
verify: $(VENV)/.demo ## Prove again that each system works; changes nothing
	@$(PLAYBOOK) playbooks/verify.yml

.PHONY: status
status: $(VENV)/.demo ## Show replicas, the configuration each Envoy has accepted, and certificates (engine kubernetes)
	@$(PLAYBOOK) playbooks/status.yml

.PHONY: reset
reset: $(VENV)/.demo ## Stop the systems and remove everything the demo made outside this folder
	@$(PLAYBOOK) playbooks/reset.yml

.PHONY: venv
venv: $(VENV)/.demo ## Make .venv with all that the demo needs, and nothing else

# The tests' runner needs nothing but Python; it makes the environments of the parts it runs.
.PHONY: test
test: ## Run the tests that can run here
	@PYTHON=$(PYTHON) tests/run

.PHONY: test-thorough
test-thorough: ## Run all tests on meshes and on the cluster, with those that take minutes each (over an hour)
	@THOROUGH=1 PYTHON=$(PYTHON) tests/run programs images cluster load behaviour local

.PHONY: unit
unit: ## Run the unit and golden tests
	@PYTHON=$(PYTHON) tests/run unit

.PHONY: prove
prove: $(VENV)/.test ## Try 10,000 random inventories, valid and damaged (about an hour); EXAMPLES=… and SEED=… choose others
	@EXAMPLES=$(or $(EXAMPLES),10000) SEED=$(or $(SEED),1) $(VENV)/bin/python -m pytest --verbose -s tests/properties

.PHONY: lint
lint: ## Run ruff, ansible-lint and mypy
	@PYTHON=$(PYTHON) tests/run lint mypy

.PHONY: sanity
sanity: ## Run ansible-test sanity on the oldest and the newest supported ansible-core
	@PYTHON=$(PYTHON) tests/run sanity

.PHONY: bench
bench: $(VENV)/.test ## Measure speed against floors, into docs/speed.md; PARTS=render measures some of it
	@$(VENV)/bin/python -m compileall -q -x ansible_collections $(VENV)/lib
	@PYTHONPATH=tests:.collections $(VENV)/bin/python -m bench $(PARTS)

# Its programs are built once; KUBECONFIG=... names another cluster, which then is only asked whether it answers.
.PHONY: cluster
cluster: $(VENV)/.test ## Start a Kubernetes of two nodes on this machine (as root, needs Go) and tell its kubeconfig
	@PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m cluster up

.PHONY: cluster-down
cluster-down: $(VENV)/.test ## End that Kubernetes; what was built for it stays
	@PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m cluster down

.PHONY: docs
docs: $(VENV)/.demo ## Generate the role READMEs' variables and the variable reference
	@$(VENV)/bin/python docs/generate.py

.PHONY: dist
dist: $(VENV)/.demo ## Build the collection's artifact into dist/
	@$(VENV)/bin/ansible-galaxy collection build --force --output-path dist

.PHONY: clean
clean: ## Remove .venv, caches and test output from this folder (not what the demo made: make reset)
	rm -rf $(VENV) .cache dist tests/output

# An environment made elsewhere, or by a Python that is gone, is made anew: its programs name both by absolute path.
ifneq ($(shell $(VENV)/bin/python -c '' 2>/dev/null && cat $(VENV)/.made-in),$(CURDIR))
.PHONY: $(VENV)/.made-in
endif

$(VENV)/.made-in:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on PATH. Name a Python >= 3.11: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old. Name a Python >= 3.11: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) (about half a minute, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@echo $(CURDIR) > $@

# Without --no-compile pip spends most of its time on bytecode of collections that nobody loads.
$(VENV)/.%: requirements-%.txt requirements.txt $(VENV)/.made-in
	@$(VENV)/bin/pip install --quiet --no-compile --requirement $<
	@touch $@
