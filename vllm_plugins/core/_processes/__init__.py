"""Parts of running a program: what it sees, what it writes, and how it ends."""
