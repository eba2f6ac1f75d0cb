"""Compile a portable bundle for one backend. Needs onnx, never torch."""
