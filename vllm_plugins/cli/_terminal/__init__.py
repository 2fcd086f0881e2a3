"""What is different on a terminal: colours, tables of its width, and the steps that are running."""
