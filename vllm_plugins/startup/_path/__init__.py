"""What comes from where on the import path: the modules of plugins, and what overrides the base."""
