"""What environment variables lead to that a start which is up to date does not look for."""
