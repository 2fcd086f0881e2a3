"""The form of a lock file: the keys that it may have, and PEP 751 as it is read."""
