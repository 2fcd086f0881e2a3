"""Lock the targets of plugins.yaml: each by itself, then with the pins that they can share."""
