"""The search for releases: requirements followed through the index, the releases there, and what does not fit."""
