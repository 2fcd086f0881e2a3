"""Changes of plugins.yaml that keep its comments and layout."""
