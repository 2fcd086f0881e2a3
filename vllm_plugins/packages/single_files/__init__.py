"""Single files of plugins.yaml, such as a chat template: their content, and the wheels that they become."""
