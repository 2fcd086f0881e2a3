"""What a build sees of the vLLM environment: the packages that it was given, and what these require."""
