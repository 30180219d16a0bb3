"""Adds to TensorBoard what it shows of a run beyond its curves."""
