"""What this machine has, what it makes of the experiments, and whether its numbers are right."""
