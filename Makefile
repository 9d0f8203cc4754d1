# One command each; `make` alone lists them. Everything that needs the environment makes it first.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TASK ?= PushT
EPISODES ?= 200
TASKS ?= TwoRoom PointMaze Reacher PushT Cube
# Extra words for the one `pip install` that brings torch, such as another index that has the build you want.
PIP_TORCH_ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
PEERS := .venv-peers
PIP_PEERS := $(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install
# Whose rivals `train-rivals` trains.
RIVAL_TASKS ?= TwoRoom Reacher PushT PointMaze
# A look must not overwrite what was measured in full.
SPEED_RESULTS := $(if $(QUICK),runs/speed/speed.jsonl,benchmarks/results/speed.jsonl)
SPEED_PICTURES := $(if $(QUICK),runs/speed,docs)
# Small tensors and two cores: more threads only wait for each other.
TESTING := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture test-adapters train freeze bench-success bench-distances bench-speed mujoco4 lint format types wheel-check clean bench-claims train-rivals bench-lewm

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo "  PYTHON=python3.12        the interpreter the environment is made with (3.11 or later)"
	@echo "  PIP_TORCH_ARGS='...'     extra pip arguments for torch alone; where plain pip brings gigabytes of CUDA"
	@echo "                           libraries, pass the --index-url of PyTorch's CPU wheels"

setup: $(STAMP)  ## make .venv with the pinned packages (the other commands do it by themselves)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jepa-mpc needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.11" >&2; exit 2; }
	@echo "[1/4] making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch (about 200 MB)"
	@$(PIP) $(PIP_TORCH_ARGS) "$$(grep '^torch==' requirements.lock)" -c requirements.lock
	@echo "[3/4] installing the pinned packages"
	@$(PIP) -r requirements.lock
	@echo "[4/4] installing jepa-mpc itself"
	@PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## plan from pixels to held-out image goals with the shipped models; plan.mp4, report.html, results.json
	@$(BIN)/jepa-mpc demo

test: $(STAMP)  ## the fast tests, under 5 minutes on 2 cores
	@$(TESTING) -n 2 --dist worksteal -m "not slow"

torture: $(STAMP)  ## the slow tests
	@$(TESTING) -m slow

# OGBench goes into the same environment; nothing that the core pins changes.
$(VENV)/.ogbench: $(STAMP) requirements-ogbench.lock
	@echo "installing OGBench"
	@$(PIP) -r requirements-ogbench.lock -c requirements.lock
	@touch $@

test-adapters: $(VENV)/.ogbench  ## install OGBench too and test the adapters to other people's benchmarks
	@$(TESTING) tests/test_adapters.py

train: $(STAMP)  ## train a world model: make train TASK=PushT
	@$(BIN)/jepa-mpc train $(TASK)

freeze: $(STAMP)  ## write a task's evaluation protocol and its pairs: make freeze TASK=PushT; REPLACE=1 keeps the version, ANEW=1 takes other pairs
	@$(BIN)/python -m benchmarks.freeze $(TASK) $(if $(REPLACE),--replace) $(if $(ANEW),--anew)

bench-success: $(STAMP)  ## success on EPISODES=200 held-out goals of every task, into benchmarks/results and the models' cards
	@set -e; for task in $(TASKS); do \
	  $(BIN)/jepa-mpc evaluate $$task --episodes $(EPISODES) --out runs/evaluate/$$task --record; \
	  cp runs/evaluate/$$task/results.json benchmarks/results/$${task//\//-}.json; done

bench-distances: $(STAMP)  ## success on 200 goals 25, 50 and 100 steps away, anywhere, and strictly; goes on where it stopped
	@$(BIN)/python -m benchmarks.distances

# TorchRL wants an older tensordict than we do, so that other people's planners, and we beside them, run in a venv of
# their own. One that cannot be installed is reported by the benchmark as missing.
$(PEERS)/.installed: benchmarks/speed/peers.txt requirements.lock
	@echo "making $(PEERS) (torch and other people's planners)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PIP_PEERS) $(PIP_TORCH_ARGS) "$$(grep '^torch==' requirements.lock)" -c requirements.lock
	@$(PIP_PEERS) numpy -c requirements.lock
	@$(PIP_PEERS) --no-deps -r benchmarks/speed/peers.txt || grep '==' benchmarks/speed/peers.txt | \
	  while read -r package; do $(PIP_PEERS) --no-deps "$$package" || echo "not installed: $$package" >&2; done
	@touch $@

bench-speed: $(STAMP) $(PEERS)/.installed  ## ms a plan, beside other planners on the same models, in 15 minutes; QUICK=1 for a look in one
	@mkdir -p $(SPEED_PICTURES)
	@$(PEERS)/bin/python -m benchmarks.speed $(if $(QUICK),--quick) --out $(SPEED_RESULTS)
	@$(BIN)/python -m benchmarks.speed.plots $(SPEED_RESULTS) --pictures $(SPEED_PICTURES)

# Same encoder, same data, same number of updates; goes on where it stopped, and leaves who is trained already. Our JEPA
# with varied looks is the one that ships, on Reacher the one from before it was taught clouds.
train-rivals: $(STAMP)  ## train everybody whom bench-claims compares: rivals and our JEPA, with and without varied looks and clouds
	@set -e; for task in $(RIVAL_TASKS); do $(BIN)/python -m benchmarks.claims.everyone $$task; done

bench-claims: $(STAMP)  ## a JEPA beside models that predict pictures: noise, cost, energy, success foretold; goes on where it stopped; QUICK=1, FRESH=1
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.claims $(if $(QUICK),--quick)

bench-lewm: $(STAMP)  ## LeWM's recipe trained on the same play and played on the same pairs as ours: make bench-lewm TASK=PushT
	@$(BIN)/python -m benchmarks.lewm $(TASK)

# Newer simulator, same tests: an environment laid over .venv, so that only MuJoCo differs.
mujoco4: $(STAMP)  ## the tasks' tests on MuJoCo 4.0.0 (downloads it)
	@$(BIN)/python -m venv .venv-mujoco4
	@$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > "$$(.venv-mujoco4/bin/python -c 'import site; print(site.getsitepackages()[0])')/base.pth"
	@.venv-mujoco4/bin/python -m pip --disable-pip-version-check --quiet install --no-deps mujoco==4.0.0 mujoco-core==4.0.0
	@.venv-mujoco4/bin/python -c 'import mujoco; assert mujoco.__version__ == "4.0.0"'
	@OMP_NUM_THREADS=1 .venv-mujoco4/bin/python -m pytest -q -m "not slow" tests/test_envs.py tests/test_rendering.py tests/test_oracle.py

lint: $(STAMP)  ## ruff, rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP)  ## mypy
	@$(BIN)/mypy

wheel-check: $(STAMP)  ## build the wheel and use it beside somebody else's envs/
	@$(TESTING) tests/test_packaging.py

clean:  ## remove caches and build leftovers (keeps .venv, data and runs)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
