"""Examines a machine: its properties, its speed, and whether its numbers are right."""
