"""A small vector language for Numba: L floats as one value; it knows of no network."""
