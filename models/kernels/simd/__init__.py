"""A small vector language for Numba: eight floats as one value; it knows of no network."""
