"""The process of a command: its streams, its signals, and how it ends."""
