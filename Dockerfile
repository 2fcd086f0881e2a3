# vLLM with the plugin manager in it. Its entry point stays vLLM's own.
#   docker build -t vllm-with-plugins .
#   docker run --shm-size 1g -v ./plugins:/plugins:ro -v store:/store vllm-with-plugins --model …
# For an image with plugins in it, built on this one: examples/baked.Dockerfile
ARG BASE_IMAGE=vllm/vllm-openai:latest
FROM ${BASE_IMAGE}

# Into the interpreter that runs vLLM: its hook is found there. What is installed already is a constraint, so that
# nothing of vLLM's environment is replaced.
COPY pyproject.toml README.md LICENSE /tmp/vllm-plugin-manager/
COPY vllm_plugins /tmp/vllm-plugin-manager/vllm_plugins
RUN python3 -m pip list --format freeze --exclude pip --exclude vllm-plugin-manager > /tmp/there.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/there.txt "/tmp/vllm-plugin-manager[uv]" \
    && rm -r /tmp/vllm-plugin-manager /tmp/there.txt

# The server needs no root: a user of its own, who owns the store.
RUN useradd --system --uid 10001 --create-home vllm-plugins \
    && install --directory --mode=0755 /plugins \
    && install --directory --owner=10001 --group=0 --mode=0755 /store
ENV VLLM_PLUGIN_CONFIG=/plugins/plugins.yaml \
    VLLM_PLUGIN_REGISTRY_DIR=/store
USER 10001
HEALTHCHECK --start-period=10m --interval=30s --timeout=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
