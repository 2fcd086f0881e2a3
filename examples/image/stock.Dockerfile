# vLLM's own image, and in it the content of an image that `vllm-plugins push` has made: for Docker, which mounts no images.
# Nothing is installed, and no package of vLLM's image changes.
#   docker build -f stock.Dockerfile -t vllm-with-my-plugins \
#     --build-arg PLUGINS_IMAGE=registry.example.org/team/plugins@sha256:… \
#     --build-arg BASE_IMAGE="$(docker inspect --format '{{index .RepoDigests 0}}' vllm/vllm-openai:v0.32.0)" .
ARG BASE_IMAGE=vllm/vllm-openai@sha256:give-the-digest-as-the-first-lines-of-stock.Dockerfile-show
ARG PLUGINS_IMAGE=registry.example.org/team/plugins@sha256:give-the-digest-that-vllm-plugins-push-prints
FROM ${PLUGINS_IMAGE} AS plugins

FROM ${BASE_IMAGE}
COPY --from=plugins / /opt/vllm-plugins/
ENV PYTHONPATH=/opt/vllm-plugins/manager \
    VLLM_PLUGIN_CONFIG=/opt/vllm-plugins/plugins.yaml \
    VLLM_PLUGIN_REGISTRY_DIR=/opt/vllm-plugins/store \
    VLLM_PLUGIN_FROZEN=1
