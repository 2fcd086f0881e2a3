"""Where images are kept: registries, and directories."""
