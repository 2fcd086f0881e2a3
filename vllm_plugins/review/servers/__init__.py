"""What running servers have."""
