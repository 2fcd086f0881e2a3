# plugins.yaml, plugins.lock and every wheel, as a small layer on the manager's image: what an init container installs from.
# A change of plugins is then a new image of some megabytes, and the server's image stays. In a directory with plugins.yaml,
# plugins.lock and the result of `vllm-plugins bundle`:
#   docker build -f carrier.Dockerfile -t registry.example.org/my-plugins:1 \
#     --build-arg MANAGER_IMAGE="$(docker inspect --format '{{index .RepoDigests 0}}' registry.example.org/vllm-with-plugins:1)" .
ARG MANAGER_IMAGE=vllm-with-plugins@sha256:give-the-digest-as-the-first-lines-of-carrier.Dockerfile-show
FROM ${MANAGER_IMAGE}
COPY plugins.yaml plugins.lock /plugins/
COPY plugins.wheels /plugins/plugins.wheels
