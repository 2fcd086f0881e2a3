"""Mutation testing: change one thing of a module at a time, and see whether a test of that module notices."""
