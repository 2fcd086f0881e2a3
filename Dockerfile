# vLLM with the plugin manager in it. Its entry point stays vLLM's own. At the top of the repository:
#   docker pull vllm/vllm-openai:v0.32.0
#   docker build -t vllm-with-plugins \
#     --build-arg BASE_IMAGE="$(docker inspect --format '{{index .RepoDigests 0}}' vllm/vllm-openai:v0.32.0)" .
#   docker run --shm-size 1g -v ./plugins:/plugins:ro -v store:/store vllm-with-plugins --model …
# For an image with plugins in it, built on this one: examples/image/baked.Dockerfile
ARG BASE_IMAGE=vllm/vllm-openai@sha256:give-the-digest-as-the-first-lines-of-the-Dockerfile-show

FROM ${BASE_IMAGE} AS wheel
COPY examples/image/build-requirements.txt /tmp/
RUN python3 -m pip install --no-cache-dir --require-hashes --only-binary :all: --target /tmp/backend \
    -r /tmp/build-requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY vllm_plugins /src/vllm_plugins
RUN PYTHONPATH=/tmp/backend python3 -m pip wheel --no-build-isolation --no-deps --wheel-dir /wheel /src

FROM ${BASE_IMAGE}
# Into the interpreter that runs vLLM: its hook is found there. What is installed already is left out of the requirements,
# so that nothing of vLLM's environment is replaced. The last step fails where that is not enough.
COPY examples/image/requirements.txt /tmp/manager/
COPY --from=wheel /wheel /tmp/manager/wheel
WORKDIR /tmp/manager
RUN python3 -m pip list --format freeze --exclude pip > list.txt \
    && sed 's/==.*//; s/[_.]/-/g; s/.*/^&==/' list.txt > there.txt \
    && grep -v -i -f there.txt requirements.txt > missing.txt \
    && python3 -m pip install --no-cache-dir --require-hashes --only-binary :all: --no-deps -r missing.txt \
    && python3 -m pip install --no-cache-dir --no-index --no-deps --force-reinstall wheel/*.whl \
    && python3 -m pip install --no-cache-dir --no-index --dry-run wheel/*.whl

# The server needs no root: a user of its own, who owns the store.
WORKDIR /
RUN rm -r /tmp/manager \
    && useradd --system --uid 10001 --create-home vllm-plugins \
    && install --directory --mode=0755 /plugins \
    && install --directory --owner=10001 --group=0 --mode=0755 /store
# Without a mount it is plain vLLM. A deployment with plugins sets VLLM_PLUGIN_OPTIONAL=0, so that it does not start without them.
ENV VLLM_PLUGIN_CONFIG=/plugins/plugins.yaml \
    VLLM_PLUGIN_OPTIONAL=1 \
    VLLM_PLUGIN_REGISTRY_DIR=/store
USER 10001
HEALTHCHECK --start-period=10m --interval=30s --timeout=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
