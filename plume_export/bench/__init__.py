"""Measure a bundle against PyTorch, other bundles and the hardware's limits."""
