"""The words of the command line: which commands and options they give, and what was meant if they give none."""
