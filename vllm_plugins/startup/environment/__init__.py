"""Environment variables that a start which is up to date does not look for."""
