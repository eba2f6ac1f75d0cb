"""Measure a bundle: against PyTorch, against other bundles and against what the hardware allows."""
