"""The form of the two files: the plugins of a manifest, the keys that a lock may have, and PEP 751 as it is read."""
