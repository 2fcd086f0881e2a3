"""The checks of an overlay: whose each file is, and whether plugins and vLLM load, which child processes try."""
