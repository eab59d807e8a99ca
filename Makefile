# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up in .venv.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help ratios demo test check docs notebooks wheels windows families adapters quantization hosts trl-tests ranks ray-tests vllm-tests deepspeed-tests campaign gpu sft-config data-formats templates format figures verdicts clean

help:
	@echo "make demo    fine-tune a real model with and without replay and see what each forgot (about 15 minutes)"
	@echo "make test    run the tests"
	@echo "make check   lint, types, layers"
	@echo "make docs    build the documentation site into site/ and check its links (under a minute)"
	@echo "make notebooks  run the notebooks and the tutorials on a tiny model (about two minutes)"
	@echo "make wheels  install wheel and sdist into empty environments, and use them there (downloads several GB)"
	@echo "make windows run the tests of training under the versions that hosts pin (about half an hour)"
	@echo "make data-formats  write docs/data-formats.md again: which data is read, which refused"
	@echo "make hosts   run Axolotl, ms-swift and others with keeptune, and read what it saves elsewhere (about an hour)"
	@echo "make trl-tests  run TRL's own tests with keeptune's trainer: TRL_TESTS=PATH/TO/trl/tests make trl-tests"
	@echo "make sft-config runs with every field of a table [sft] (about five minutes)"
	@echo "make families walk every family of models and write docs/families.md (about half an hour; resumes)"
	@echo "make adapters  train every adapter type of PEFT with replay (about ten minutes)"
	@echo "make quantization  try every quantization of transformers that loads on a CPU (about ten minutes)"
	@echo "make ranks   kill processes that write a pool together, twenty times, and the long tests of several processes"
	@echo "make ray-tests  pools and plans on a real Ray, twenty workers killed (about a quarter of an hour; resumes)"
	@echo "make vllm-tests  text of the real vLLM beside the torch engine's, twenty killed (about half an hour; resumes)"
	@echo "make deepspeed-tests  two processes of ZeRO against one, resumed runs (about five minutes)"
	@echo "make campaign  kills, flipped bits, failing disks, bad and hostile input: docs/reliability.md (ten minutes at a time; resumes)"
	@echo "make gpu     tests and benchmarks of a GPU in one run of at most ten minutes, into one JSON"
	@echo "make ratios  speed and memory against TRL and transformers, and against this machine's limits (about an hour, quiet)"
	@echo "make templates write docs/chat-templates.md (which tokens bear loss) and docs/data-layouts.md again"
	@echo "make lab-X   run what is missing of the experiment lab/X; make figures, make verdicts: redraw, judge again"

docs: .docs/installed
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --strict

notebooks: .venv/installed-notebooks
	$(BIN)/python -m tests.docs.run_notebooks
	$(BIN)/python -m pytest tests/docs/run_tutorials.py

wheels:
	$(PYTHON) tests/wheels/run.py $(ARGS)

demo: .venv/installed
	$(BIN)/keeptune demo

# Whole files go to a worker, so that what a module makes once is made once; the long ones come first in the tree.
test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/docs/words.py

windows: .venv/installed-dev
	$(BIN)/python tests/windows/run.py

data-formats: .venv/installed-dev
	$(BIN)/python -m tests.helpers.data_files

hosts: .venv/installed-dev
	$(BIN)/python tests/hosts/run.py $(ARGS)

trl-tests: .venv/installed-dev
	$(BIN)/python tests/trl/run.py $(ARGS)

# Every field of TRL's SFTConfig through keeptune tune, then docs/sft-config.md.
sft-config: .venv/installed-dev
	$(BIN)/python tests/sft_config/run.py

families: .venv/installed-dev
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.families.run $(ARGS)

adapters: .venv/installed-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.adapters.run $(ARGS)

quantization: .venv/installed-dev
	$(BIN)/python tests/quantization/run.py

ranks: .venv/installed-dev
	HF_HUB_OFFLINE=1 KEEPTUNE_RANKS=1 $(BIN)/python -m pytest tests/ranks tests/invariants/test_recipes.py
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.ranks.kills $(ARGS)

ray-tests: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cluster]"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m tests.cluster.kills $(ARGS)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=.:tests KEEPTUNE_RAY=1 $(BIN)/python -m pytest tests/cluster

vllm-tests: .venv/installed-dev
	$(BIN)/python -m tests.vllm.run $(ARGS)

deepspeed-tests: .venv/installed-dev
	test -x .deepspeed/bin/python || $(PYTHON) -m venv .deepspeed
	.deepspeed/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]" deepspeed
	HF_HUB_OFFLINE=1 .deepspeed/bin/python -m tests.ranks.zero

# Trials that are missing: make campaign ARGS="kill --minutes 30". With gcc, calls of the C library fail on purpose.
campaign: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign.run $(ARGS)

# On a machine whose python has torch, transformers and accelerate, and TRL, PEFT and datasets beside them.
gpu:
	$(PYTHON) benchmarks/gpu.py $(ARGS)

# On a machine with nothing else to do: rounds are interleaved, but a busy processor moves them all.
ratios: .venv/installed-dev
	$(BIN)/python benchmarks/roofline.py
	$(BIN)/python benchmarks/bench_step.py
	$(BIN)/python benchmarks/bench_step.py --rows 2
	$(BIN)/python benchmarks/bench_sample.py
	$(BIN)/python benchmarks/bench_sample.py --rows 128
	$(BIN)/python benchmarks/bench_meter.py
	$(BIN)/python benchmarks/bench_memory.py
	$(BIN)/python benchmarks/make_results.py

# Which tokens bear loss with each chat template that TRL ships, and what each layout of rows is read as.
templates: .venv/installed-dev
	$(BIN)/python -m tests.helpers.chats
	$(BIN)/python -m tests.helpers.layouts

# lab-toy_continual runs lab/toy_continual; ARGS="--size smoke" and the like go to lab/run.py.
lab-%: .venv/installed
	$(BIN)/python lab/run.py $* $(ARGS)

figures: .venv/installed
	$(BIN)/python lab/figures.py

verdicts: .venv/installed
	$(BIN)/python lab/verdicts.py

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .docs .deepspeed site .mypy_cache .ruff_cache .pytest_cache

# constraints.txt pins the versions the results were made with, and with them torch's small CPU build.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

.venv/installed-notebooks: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --group notebooks
	touch $@

.docs/installed: pyproject.toml
	test -x .docs/bin/python || $(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --upgrade pip
	.docs/bin/python -m pip install --quiet --group docs
	touch $@
