"""Checks of an overlay: which distribution owns each file, and (in child processes) whether plugins and vLLM load."""
