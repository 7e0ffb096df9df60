"""Inference: everything from a GGUF file to sampled tokens. Knows nothing of text templates, HTTP or peers."""
