"""Checks of an overlay: whose each file is, what the import path may have, and whether plugins and vLLM load."""
