"""Models on this machine and the ways they come here: library, catalogue, origins, downloads."""
