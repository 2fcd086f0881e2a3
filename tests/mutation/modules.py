"""The modules that decide what is refused or what runs, and the tests of each in one process."""

from __future__ import annotations

__all__ = ["TESTS"]

_LOCK = (
    "tests/documents/test_lock_reader.py",
    "tests/documents/test_lock_writer.py",
    "tests/documents/test_known_keys.py",
    "tests/documents/test_pylock.py",
    "tests/documents/test_indexes.py",
    "tests/documents/test_targets.py",
)
_HOOK = (
    "tests/startup/test_hook_calls.py",
    "tests/startup/test_inherited_overlays.py",
    "tests/startup/test_start_installs.py",
    "tests/startup/test_hook_in_process.py",
    "tests/startup/test_ranks.py",
    "tests/startup/test_recovery.py",
    "tests/startup/test_missed.py",
)

TESTS: dict[str, tuple[str, ...]] = {
    # the lock: what it may say, whether it agrees with itself, with plugins.yaml and with its sources
    "documents/lock_reader": _LOCK,
    "documents/_lock/environment_tables": _LOCK,
    "documents/_lock/package_table": _LOCK,
    "documents/_lock/plugin_table": _LOCK,
    "documents/_lock/pylock": _LOCK,
    "documents/_lock/known_keys": _LOCK,
    "documents/_lock/values": _LOCK,
    "documents/_lock/several_targets": _LOCK,
    "documents/consistency": ("tests/documents/test_consistency.py",),
    "documents/compatibility": ("tests/documents/test_compatibility.py",),
    "documents/policy": ("tests/documents/test_policy.py",),
    "documents/selection": ("tests/documents/test_selection.py", "tests/documents/test_known_keys.py"),
    "locking/_check/derivation": ("tests/locking/test_derivation.py",),
    "locking/_check/derived_edges": ("tests/locking/test_derived_edges.py",),
    "locking/_check/comparison": ("tests/locking/test_comparison.py",),
    "locking/rebuild": ("tests/locking/test_rebuild_rules.py", "tests/locking/test_rebuild_builds.py"),
    "locking/old_lock": ("tests/locking/test_old_lock.py", "tests/locking/test_is_current.py"),
    # what a review says
    "review/_audit/auditor": ("tests/review/test_audit_rules.py",),
    "review/_audit/lock_checks": ("tests/review/test_audit_rules.py",),
    "review/_audit/provenance": ("tests/review/test_audit_rules.py", "tests/review/test_one_line.py"),
    "review/_audit/licenses": ("tests/review/test_licenses.py",),
    "review/_audit/index_checks": ("tests/review/test_audit_rules.py", "tests/review/test_audit_run.py"),
    "review/_audit/advisory_checks": ("tests/review/test_audit_rules.py", "tests/review/test_audit_run.py"),
    "review/_audit/ref_checks": ("tests/review/test_audit_rules.py", "tests/review/test_audit_run.py"),
    "review/audit": ("tests/review/test_audit_rules.py", "tests/review/test_audit_run.py"),
    "review/verify": ("tests/review/test_verify.py",),
    "packages/attestations": ("tests/packages/test_attestations.py",),
    "sources/_links": ("tests/sources/test_links.py",),
    # what runs in a process of vLLM
    "startup/_trust": ("tests/startup/test__trust.py",),
    "startup/_recovery": ("tests/startup/test_recovery.py", "tests/startup/test_start_installs.py"),
    "startup/integrity": ("tests/startup/test_integrity.py",),
    "startup/guard": ("tests/startup/test_guard.py",),
    "core/verified_import": ("tests/startup/test_guard.py",),
    "startup/ranks/expectation": (
        "tests/startup/test_expectation.py",
        "tests/startup/test_groups.py",
        "tests/startup/test_ranks.py",
    ),
    "startup/_path/origins": ("tests/startup/test_origins.py",),
    "startup/_path/overrides": ("tests/startup/test_overrides_in_front.py",),
    "startup/hook": _HOOK,
    "startup/activation": (
        "tests/startup/test_activation.py",
        "tests/startup/test_shadowing.py",
        "tests/startup/test_overrides_in_front.py",
        *_HOOK,
    ),
    "install/_stage": ("tests/install/test_stage.py",),
    # what is shown and kept of secrets and foreign text
    "core/tokens": ("tests/core/test_tokens.py", "tests/core/test_redact.py"),
    "core/redact": ("tests/core/test_redact.py", "tests/core/test_tokens.py"),
    "core/printable": ("tests/core/test_printable.py",),
    "core/regular_file": ("tests/core/test_regular_file.py",),
}
