"""The parts of plugins.lock: the form of its tables, the keys that it may have, and PEP 751 as it is read."""
