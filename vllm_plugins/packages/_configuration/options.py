"""Every option of pip and uv, and whether it counts here.

Options that say where packages come from are honoured. Those that change what is installed, or where, are ignored.
"""

from __future__ import annotations

__all__ = ["CHOICE", "PIP_HONOURED", "PIP_IGNORED", "UV_HONOURED", "UV_IGNORED", "UV_VARIABLES"]


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


# Every option of `pip install`: each is also a key of pip.conf and a variable PIP_*.
PIP_HONOURED = _names(
    "cert client-cert default-timeout extra-index-url find-links index-url keyring-provider no-index no-proxy-env",
    "proxy pypi-url retries timeout trusted-host",
)
PIP_IGNORED = _names(
    # What is installed.
    "abi all-releases build-constraint config-settings constraint editable exists-action force-reinstall",
    "global-option group ignore-installed ignore-requires-python implementation no-binary no-build-isolation no-deps",
    "no-dependencies no-require-hashes only-binary only-dependencies only-deps only-final platform pre prefer-binary",
    "python-version require-hashes requirement requirements-from-script upgrade upgrade-strategy uploaded-prior-to",
    "use-pep517",
    # Where it is installed.
    "break-system-packages dry-run no-user prefix python require-venv require-virtualenv root source source-dir",
    "source-directory src target user",
    # How pip works and what it shows.
    "cache-dir check-build-dependencies compile debug disable-pip-version-check help isolated local-log log log-file",
    "no-cache-dir no-clean no-color no-compile no-input no-python-version-warning no-warn-conflicts",
    "no-warn-script-location progress-bar quiet refresh-package report resume-retries root-user-action version",
    "use-deprecated use-feature verbose",
)
# Every option of `uv pip install` and `uv pip compile`: most are also keys of uv.toml and variables UV_*.
UV_HONOURED = _names(
    "allow-insecure-host cert default-index extra-index-url find-links index index-url keyring-provider no-index",
    "system-certs",
)
UV_IGNORED = _names(
    # What is installed.
    "all-extras build-constraints check compile-bytecode config-setting config-settings-package constraints editable",
    "exact exclude-newer exclude-newer-package excludes extra fork-strategy group index-strategy no-binary no-build",
    "no-build-isolation no-build-isolation-package no-deps no-editable no-editable-package no-sources",
    "no-sources-package no-verify-hashes only-binary overrides prerelease prerelease-package python-platform",
    "python-version refresh refresh-package reinstall reinstall-package require-build-hashes require-hashes",
    "requirements resolution strict torch-backend universal upgrade upgrade-group upgrade-package",
    # Where it is installed.
    "break-system-packages directory dry-run managed-python no-break-system-packages no-managed-python",
    "no-python-downloads prefix project python system target user",
    # How uv works and what it shows.
    "annotation-style cache-dir color config-file custom-compile-command emit-build-options emit-find-links",
    "emit-index-annotation emit-index-url format generate-hashes help link-mode no-annotate no-cache no-config",
    "no-emit-package no-header no-progress no-strip-extras no-strip-markers offline output-file output-format quiet",
    "verbose",
)
# Variables of uv that are honoured. All other variables UV_* are ignored.
UV_VARIABLES = _names(
    "UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX UV_INDEX_URL UV_INSECURE_HOST UV_KEYRING_PROVIDER",
    # Passed to uv as they are: certificates, timeouts, and where it finds logins.
    "UV_AZURE_ENDPOINT_URL UV_CONCURRENT_BUILDS UV_CONCURRENT_DOWNLOADS UV_CONCURRENT_INSTALLS UV_CREDENTIALS_DIR",
    "UV_GCS_ENDPOINT_URL UV_HTTP_CONNECT_TIMEOUT UV_HTTP_RETRIES UV_HTTP_TIMEOUT UV_LOCK_TIMEOUT UV_NATIVE_TLS",
    "UV_REQUEST_TIMEOUT UV_S3_ENDPOINT_URL UV_SYSTEM_CERTS",
)
# Ignored keys that choose among versions: a lock says that they had no effect.
CHOICE = _names(
    "all-releases constraint constraint-dependencies constraints exclude-dependencies exclude-newer",
    "exclude-newer-package excludes no-binary no-binary-package no-build no-build-package only-binary only-final",
    "override-dependencies overrides pre prefer-binary prerelease resolution torch-backend uploaded-prior-to",
)
