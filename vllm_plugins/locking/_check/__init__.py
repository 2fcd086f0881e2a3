"""Parts of ``lock --check``: what it compares with the lock."""
