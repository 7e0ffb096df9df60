"""OpenAI's API: chat completions, completions, embeddings, responses, models."""
