"""Pictures of digits from files, brought into the shape of MNIST's own."""
