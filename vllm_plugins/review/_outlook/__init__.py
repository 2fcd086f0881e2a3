"""Static reading of plugins and of vLLM: which names one imports, and which the other defines."""
