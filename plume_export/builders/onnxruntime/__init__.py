"""From portable bundles to ONNX Runtime graphs: fused operators and, for a CPU, int8 matmuls and prepacked weights."""
