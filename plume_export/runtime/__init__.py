"""Run a bundle: sessions per backend, the latent rollout, the embedder. Nothing here needs torch, transformers or onnx."""
