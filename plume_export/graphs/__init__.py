"""The three graphs as PyTorch modules, their tracing, and the weight file that they share."""
