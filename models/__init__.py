"""The networks, and what they are made of. Empty on purpose: kernels must not load Lightning."""
