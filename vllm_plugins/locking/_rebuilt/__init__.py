"""Parts of building locked wheels again."""
