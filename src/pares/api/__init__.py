"""HTTP: the OpenAI and Ollama surfaces, the control API, the page's static files. No decisions of its own."""
