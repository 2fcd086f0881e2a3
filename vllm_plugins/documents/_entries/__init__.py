"""The parts of plugins.yaml that have a module of their own."""
