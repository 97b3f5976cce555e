# The commands of this project. Each target first makes .venv if it is missing or out of date; `make bench` makes
# .venv-gpu, with the CUDA builds, if there is a GPU. Nothing is installed anywhere else.
#
#   make quickstart        fetch a small model and train it on this machine's CPU
#                          (FRESH=1: start over; the old run moves to another folder)
#   make test              ruff, mypy on every room, pytest: at most 12 minutes on two cores
#   make e2e               whole runs with real engines, and with actors that are killed: about an hour
#   make bench             benchmarks  (JSON=FILE  ONLY=NAME  SET="key=value …")
#   make gpu-check         prove and measure on one GPU what no other machine can  (OUT=FOLDER  MINUTES=9  ONLY=STAGE,…
#                          MODEL=FOLDER  SCRATCH=FOLDER  DEVICE=cpu  GPU_PYTHON=an environment's python)
#   make chaos             kill and hang everything in a long run, and audit it  (KILLS=50 SEED=7
#                          ENGINE=vllm: what vetoes scores is a real engine)
#   make lint              ruff and mypy alone
#   make lock              pin what pyproject.toml asks for in requirements/cpu.txt and gpu.txt
#                          (UPGRADE=1: the newest versions)
#   make clean             remove caches and build outputs; .venv and runs stay
#
#   PYTHON=/path/to/python chooses the interpreter (3.11 or newer) that .venv is made from.

PYTHON ?= python3
# Named by the content of pins and project file: a change of them installs again, a newer time stamp does not.
stamp = $(1)/.installed-$(shell cat $(2) requirements/uv.txt requirements/install.sh pyproject.toml | cksum | tr -d ' ')
STAMP := $(call stamp,.venv,requirements/cpu.txt)
BENCH_STAMP := $(if $(shell nvidia-smi -L 2>/dev/null),$(call stamp,.venv-gpu,requirements/gpu.txt),$(STAMP))
.PHONY: help quickstart test e2e bench gpu-check chaos lint lock clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/.installed-%:
	@sh requirements/install.sh "$(PYTHON)" $@ requirements/cpu.txt

.venv-gpu/.installed-%:
	@sh requirements/install.sh "$(PYTHON)" $@ requirements/gpu.txt

quickstart: $(STAMP)
	@if [ -n "$(FRESH)" ] && [ -e runs/quickstart ]; then mv -v runs/quickstart "runs/quickstart-$$(date +%Y%m%d-%H%M%S)"; fi
	@.venv/bin/dynalign model fetch smollm2-135m-instruct
	@.venv/bin/dynalign train quickstart

# One process runs what starts Ray, vLLM or a whole run, the other one all other tests: tests/conftest.py.
TWO_AT_ONCE = .venv/bin/python -m pytest -n 2

# All three run, whatever the others find, so that one run shows every mistake. Pytest's last line is the last.
test: $(STAMP)
	@failed=0; .venv/bin/ruff check . || failed=1; .venv/bin/mypy || failed=1; $(TWO_AT_ONCE) || failed=1; exit $$failed

e2e: $(STAMP)
	@.venv/bin/python -m pytest -m "e2e or chaos"

bench: $(BENCH_STAMP)
	@$(dir $(BENCH_STAMP))bin/python -m dynalign.benchmarks $(if $(JSON),--json "$(JSON)") $(if $(ONLY),--only "$(ONLY)") $(SET)

# With GPU_PYTHON nothing is installed: a machine that is lent for minutes has its environment, or no network.
gpu-check: $(if $(GPU_PYTHON),,$(BENCH_STAMP))
	@$(or $(GPU_PYTHON),$(dir $(BENCH_STAMP))bin/python) -m dynalign.benchmarks.gpu_check --out "$(or $(OUT),gpu-check)" \
	    --minutes "$(or $(MINUTES),9)" --device "$(or $(DEVICE),gpu)" $(if $(MODEL),--model "$(MODEL)") \
	    $(if $(SCRATCH),--scratch "$(SCRATCH)") $(if $(ONLY),--only "$(ONLY)")

chaos: $(STAMP)
	@.venv/bin/dynalign model fetch smollm2-135m-instruct
	@.venv/bin/python -m dynalign.benchmarks.chaos \
	    --model "$$(.venv/bin/python -c "from dynalign.launch.models.folder import model_folder; print(model_folder('smollm2-135m-instruct'))")" \
	    $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(if $(ENGINE),--judge-engine $(ENGINE))

lint: $(STAMP)
	@failed=0; .venv/bin/ruff check . || failed=1; .venv/bin/mypy || failed=1; exit $$failed

# Resolved for one platform, then adapted to both: torch's CPU build gets its suffix, which the index does not have (so
# it alone has no hash), and Intel's libraries a marker, since they exist for x86-64 only. The GPU's pins are the index's
# own. uv and pip refuse a file whose hash is another. A pin that is there already stays, unless UPGRADE is given.
COMPILE = .venv/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --no-header --no-annotate --no-emit-index-url --generate-hashes \
    --override requirements/overrides-everywhere.txt $(if $(UPGRADE),--upgrade)
lock: $(STAMP)
	@$(COMPILE) --extra cpu --extra dev --extra evaluate --override requirements/overrides.txt --output-file requirements/cpu.txt pyproject.toml > /dev/null
	@sed -i -E -e '/^torch==/{:more;/\\$$/{N;b more};s/^(torch==[0-9.]+).*/\1+cpu/}' \
	    -e "s/^(intel-[^ ]+)/\1 ; platform_machine == 'x86_64'/" requirements/cpu.txt
	@$(COMPILE) --extra gpu --extra evaluate --output-file requirements/gpu.txt pyproject.toml > /dev/null

clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path './.venv*' -prune -o -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
