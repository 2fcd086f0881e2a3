"""The Dockerfiles, built for real, and the images run as production runs them: with podman, as root."""
