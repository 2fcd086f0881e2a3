"""The Dockerfiles, built with podman as root, and the images, run as production runs them."""
