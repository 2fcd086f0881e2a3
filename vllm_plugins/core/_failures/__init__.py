"""What errors of the operating system mean for people."""
