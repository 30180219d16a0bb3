"""Networks, layers and learners. Empty on purpose: kernels must not load Lightning."""
