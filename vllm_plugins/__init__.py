"""A plugin manager for vLLM: a manifest, a lock, and an overlay that every vLLM process finds.

``activate()`` puts the locked plugins on this interpreter's path without vLLM; ``deactivate()`` undoes it.
Importing this package imports nothing else.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "activate", "deactivate"]


def activate() -> None:
    """Make the plugins of the lock importable in this process, installing them first where they are not.

    What vLLM's own hook does, without vLLM: the environment variables choose lock and store. Nothing happens
    where there is neither manifest nor lock, or where an overlay is active already.

    Raises:
        vllm_plugins.core.errors.PluginsError: the lock is missing, stale or does not fit, or the install failed.
    """
    from vllm_plugins.startup.hook import activate as start

    start()


def deactivate() -> None:
    """Undo :func:`activate`: the overlay leaves the path. Modules imported from it stay imported."""
    from vllm_plugins.startup.activation import deactivate as stop

    stop()
