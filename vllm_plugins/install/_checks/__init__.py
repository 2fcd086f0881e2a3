"""The checks of an overlay that run its code: plugins are loaded, and vLLM is imported, in child processes."""
