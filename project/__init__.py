"""What a person runs: `python -m project.fit` and its siblings."""
