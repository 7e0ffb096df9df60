"""The control API, /pares/v1: what the page and the command line use."""
