"""Whether every process of a server has the same plugins and the same base, whichever node it runs on."""
