"""A start that installs: vLLM loads new plugins while their load check runs alongside."""
