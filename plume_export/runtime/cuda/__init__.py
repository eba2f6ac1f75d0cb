"""Backends on a CUDA GPU: TensorRT, TensorRT-RTX and ONNX Runtime's CUDA provider over one block of device memory."""
