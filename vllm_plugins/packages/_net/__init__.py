"""How an index is reached: sessions, logins, keyrings."""
