"""The processes that are measured: bundles and the PyTorch reference, in turns, by messages."""
