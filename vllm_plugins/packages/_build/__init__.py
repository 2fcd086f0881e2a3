"""Build environments: what a build requires, which files that is, and the environment that has them."""
