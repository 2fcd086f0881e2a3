"""Parts of errors: their root, and what errors of the operating system mean for people."""
