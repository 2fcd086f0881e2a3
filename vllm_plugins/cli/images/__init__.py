"""Commands for images of plugins."""
