"""The parts of plugins.yaml: its plugins, indexes and targets, the rules for their values, and what is derived."""
