# Aliases for the commands that README.md prints.
.PHONY: reproduce record figures paper executed site test test-fast test-browser lint format lab pages full-size-file benchmark benchmark-torchsig

PYTHON ?= python3
FILE ?= outputs/full_size.h5
FRAMES ?= 4096
# Runs of record that notebook 04 compares.
COMPARED := [log-picture-64, radioml_2018]
BIN := .venv/bin
STRIP := --keep-id --extra-keys "metadata.papermill metadata.language_info cell.metadata.papermill"
EXECUTE = $(BIN)/papermill -k python3 --log-output --log-level INFO --no-progress-bar

# TORCH=cpu takes PyTorch's CPU build, without the pins that its CUDA build alone needs.
TORCH ?=
BUILD := $(TORCH:%=--torch-backend %)
PASSED_OVER := $(if $(filter cpu,$(TORCH)),^(cuda|nvidia|triton),^$$)

# Complete only when this file exists, so an interrupted installation is done again.
INSTALLED := .venv/.installed

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	grep -vE '$(PASSED_OVER)' requirements.lock | \
		$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode $(BUILD) -r - -e .
	touch $@

# All notebooks, beside copies of the results that they read; nothing but outputs/ is written.
REPRODUCED := outputs/reproduced
reproduce: $(INSTALLED)
	rm -rf $(REPRODUCED)
	mkdir -p $(REPRODUCED)
	cp -r results benchmarks $(REPRODUCED)
	$(MAKE) --no-print-directory record ROOT=$(REPRODUCED)
	$(BIN)/amc compare $(REPRODUCED)

# The same with runs in outputs/runs/ and figures in figures/, as the committed ones were made; `amc keep`
# puts a run into results/.
ROOT :=
TRAINING := 01_data_exploration 02_resnet_ceiling 03_swin_training 02_resnet_ceiling.stack \
	02_resnet_ceiling.resnet34
READING := 04_per_class_analysis 05_ceiling_anatomy 06_choices_and_channels 07_claims 08_real_file_curves
record: $(INSTALLED)
	$(TOGETHER) $(TRAINING:%=execute-%)
	$(TOGETHER) $(READING:%=execute-%)

# From results/ and the generator, without training.
figures: $(INSTALLED)
	$(TOGETHER) execute-01_data_exploration $(READING:%=execute-%) ARGUMENTS_04='-y "runs: $(COMPARED)"'

# Two notebooks at a time with a thread each take half as long as one at a time with two.
JOBS ?= 2
TOGETHER = OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j$(JOBS) ROOT="$(ROOT)"
# What follows the notebook's number tells executions of one notebook apart.
execute-%:
	mkdir -p outputs
	$(EXECUTE) notebooks/$(basename $*).ipynb outputs/$*.ipynb -p output_root "$(ROOT)" $(ARGUMENTS)
execute-%.resnet34: ARGUMENTS = -p network resnet34
execute-%.stack: ARGUMENTS = -y "channels: [stack]"
# It compares itself with a run of notebook 02.
execute-03_swin_training: execute-02_resnet_ceiling
execute-04_per_class_analysis: ARGUMENTS = $(ARGUMENTS_04)

# Which runs of record are done, and what comes next; with MINUTES=30 it is carried out for so long.
paper: $(INSTALLED)
	$(BIN)/amc records $(if $(MINUTES),--minutes $(MINUTES))

# The notebooks that the commands above executed, small, where GitHub shows them.
executed: $(INSTALLED)
	$(BIN)/python docs/keep_executed.py

# README, docs/, its reference, and notebooks as last executed; -E since pages may come and go.
site: $(INSTALLED)
	$(BIN)/python -m sphinx -b html -E -n -q -W --keep-going -c docs . outputs/site
	@rm -rf outputs/jupyter_execute docs/api
	@echo "the book begins at outputs/site/index.html"

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

# Without notebooks, figures, killed processes, runs of record, speed and devices.
SLOW := notebooks figures processes survival runs_of_record benchmarks classifier gpu_check pretended_device \
	readme train training study bounds package
test-fast: lint
	$(BIN)/python -m pytest -n auto --dist loadfile $(SLOW:%=--ignore tests/test_%.py)

test-browser: $(INSTALLED)
	$(BIN)/python -m pytest -s tests/browser

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify $(STRIP) notebooks/*.ipynb
	$(BIN)/zizmor --offline --quiet --strict-collection .github

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout $(STRIP) notebooks/*.ipynb

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

# Everything that is generated from results/: tables, RUNLOG.md, figures, kept notebooks, the book.
pages: $(INSTALLED)
	$(BIN)/amc report
	$(MAKE) --no-print-directory figures
	$(MAKE) --no-print-directory executed
	$(MAKE) --no-print-directory site

# As many frames of each class and SNR as RadioML 2018.01A has: 21.4 GB.
full-size-file: $(INSTALLED)
	$(BIN)/amc generate "$(FILE)" --num_frames_per_cell $(FRAMES)

benchmark: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

# An environment of its own, since TorchSig asks for another torch.
.venv-torchsig/.installed:
	$(PYTHON) -m venv .venv-torchsig
	.venv-torchsig/bin/python -m pip install --quiet torch==2.13.0 torchsig==2.2.0
	touch $@

benchmark-torchsig: $(INSTALLED) .venv-torchsig/.installed
	$(BIN)/python benchmarks/run.py generation --torchsig .venv-torchsig/bin/python
