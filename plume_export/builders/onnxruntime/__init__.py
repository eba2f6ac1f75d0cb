"""Portable bundles to graphs of ONNX Runtime: fused operators, and for a CPU its integers and the order of its weights."""
