# An image with the plugins in it: nothing is installed when it starts, so it needs no network, no writable disk and no
# particular user. In a directory with plugins.yaml, plugins.lock and the result of `vllm-plugins bundle`:
#   docker build -f baked.Dockerfile -t vllm-with-my-plugins \
#     --build-arg MANAGER_IMAGE="$(docker inspect --format '{{index .RepoDigests 0}}' registry.example.org/vllm-with-plugins:1)" .
#   docker run --shm-size 1g --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges \
#     vllm-with-my-plugins --model …
ARG MANAGER_IMAGE=vllm-with-plugins@sha256:give-the-digest-as-the-first-lines-of-baked.Dockerfile-show
FROM ${MANAGER_IMAGE}

# As root (0): whoever the server runs as can then not change what it runs.
USER 0
COPY plugins.yaml plugins.lock /plugins/
COPY plugins.wheels /plugins/plugins.wheels
RUN vllm-plugins sync --offline --registry-dir /opt/vllm-plugins \
    && rm -rf /root/.cache/vllm-plugins
ENV VLLM_PLUGIN_REGISTRY_DIR=/opt/vllm-plugins \
    VLLM_PLUGIN_OPTIONAL=0 \
    VLLM_PLUGIN_FROZEN=1
USER 10001
