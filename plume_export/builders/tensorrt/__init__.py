"""From a portable bundle to TensorRT engines. TensorRT and TensorRT-RTX differ only in the module's name."""
