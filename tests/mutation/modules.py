"""The modules that decide what is refused or what runs, and the tests of each in one process."""

from __future__ import annotations

__all__ = ["TESTS"]

_LOCK = (
    "tests/documents/test_lock_reader.py",
    "tests/documents/test_lock_writer.py",
    "tests/documents/test_lock_keys.py",
    "tests/documents/test_pylock.py",
    "tests/documents/test_indexes.py",
    "tests/documents/test_targets.py",
)
_HOOK = (
    "tests/startup/test_hook_calls.py",
    "tests/startup/test_hook_in_process.py",
    "tests/startup/test_ranks.py",
    "tests/startup/test_recovery.py",
    "tests/startup/test_missed.py",
)

TESTS: dict[str, tuple[str, ...]] = {
    "documents/policy": ("tests/documents/test_policy.py",),
    "documents/_form/lock_keys": _LOCK,
    "documents/_form/file_rules": _LOCK,
    "documents/_form/values": _LOCK,
    "documents/_form/indexes": _LOCK,
    "documents/_form/merged": _LOCK,
    "documents/_form/pylock": _LOCK,
    "documents/lock_reader": _LOCK,
    "documents/selection": ("tests/documents/test_selection.py", "tests/documents/test_lock_keys.py"),
    "documents/compatibility": ("tests/documents/test_compatibility.py",),
    "documents/consistency": ("tests/documents/test_consistency.py", "tests/documents/test_targets.py"),
    "startup/_trust": ("tests/startup/test__trust.py",),
    "startup/permissions": ("tests/startup/test__trust.py",),
    "startup/integrity": ("tests/startup/test_integrity.py",),
    "startup/guard": ("tests/startup/test_guard.py",),
    "core/verified_import": ("tests/startup/test_guard.py",),
    "startup/marker": ("tests/startup/test_marker.py", *_HOOK),
    "startup/entry_points": ("tests/startup/test_entry_points.py", "tests/startup/test_shadowing.py"),
    "startup/_path/origins": ("tests/startup/test_origins.py",),
    "startup/_path/overrides": ("tests/startup/test_overrides_in_front.py",),
    "startup/ranks/expectation": ("tests/startup/test_ranks.py",),
    "startup/named_files": _HOOK,
    "startup/_recovery": _HOOK,
    "startup/hook": _HOOK,
    "startup/activation": ("tests/startup/test_activation.py", "tests/startup/test_shadowing.py", *_HOOK),
    "core/regular_file": ("tests/core/test_regular_file.py",),
    "core/tokens": ("tests/core/test_tokens.py", "tests/core/test_redact.py"),
    "core/redact": ("tests/core/test_redact.py", "tests/core/test_tokens.py"),
    "core/printable": ("tests/core/test_printable.py",),
    "packages/attestations": ("tests/packages/test_attestations.py",),
    "packages/archives": ("tests/packages/test_archives.py",),
    "packages/wheel_files": ("tests/packages/test_wheel_files.py",),
    "review/_licenses": ("tests/review/test_licenses.py",),
    "review/verify": ("tests/review/test_verify.py",),
    "review/_provenance": ("tests/review/test_one_line.py",),
    "install/_stage": ("tests/install/test_stage.py",),
    "install/link": ("tests/install/test_link.py",),
    "locking/_derivation": ("tests/locking/test_derivation.py",),
    "locking/_derived_edges": ("tests/locking/test_derived_edges.py",),
    "locking/old_lock": ("tests/locking/test_old_lock.py",),
}
