"""The directory that ``vllm-plugins run`` puts into ``PYTHONPATH``."""
