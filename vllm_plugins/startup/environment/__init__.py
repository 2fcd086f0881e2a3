"""Environment variables beyond the settings: mistyped names, logins of indexes, and plugins that they leave out."""
