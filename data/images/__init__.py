"""Reads pictures of digits from files and converts them to the form of MNIST's images."""
