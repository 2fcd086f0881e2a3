"""The files and variables in which pip and uv are configured."""
