"""Portable bundle to TensorRT engines. TensorRT and TensorRT-RTX share everything but the module's name."""
