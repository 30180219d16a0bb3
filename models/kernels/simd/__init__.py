"""A small vector language for Numba: L floats as one value; independent of any network."""
