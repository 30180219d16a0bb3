# What one runs while one works, and what the documents are made from.

.PHONY: check test bench docs

# Before every commit: two or three minutes.
check:
	ruff check .
	ruff format --check .
	mypy
	python -m pytest -m "not slow"

test:
	python -m pytest

# What docs/performance.md is made from; alone on the machine. RECORDS=docs/bench/MACHINE keeps it.
RECORDS = bench
bench:
	python -m project.bench fit --json $(RECORDS)/fit.json --png $(RECORDS)/fit.png
	python -m project.bench iteration --batches 100 --json $(RECORDS)/iteration.json
	python -m project.bench kernel --batches 100 --json $(RECORDS)/kernel.json
	python -m project.bench scaling --json $(RECORDS)/scaling.json

# docs/results.md and its figures, from trainings that take half an hour the first time, and the
# tables that are made from kept records.
docs:
	python -m project.reproduce --publish docs
	python -m project.documents docs
