"""Layers, in torch.nn alone."""
