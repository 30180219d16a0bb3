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

# What docs/performance.md speaks of; alone on the machine.
bench:
	python -m project.bench --json bench.json --png bench.png
	python -m project.bench iteration
	python -m project.bench kernel

# docs/results.md and its figures, from trainings that take half an hour the first time.
docs:
	python -m project.reproduce --publish docs
