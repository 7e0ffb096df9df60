"""Ollama's API, for the tools that look for it."""
