"""Commands that write plugins.yaml."""
