"""Deploy PLUME: export, compile and run a universal multimodal embedding model, with measured parity."""
