"""Layers, written with torch.nn alone."""
