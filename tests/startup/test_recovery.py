"""What the hook does when a start is not up to date: the child process it starts, and the overlay it falls back to."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.startup import overlays
from vllm_plugins.core import process
from vllm_plugins.core.errors import (
    BaseMismatch,
    CommandFailed,
    InstallError,
    LoadError,
    LockMissing,
    NodeMismatch,
    OverlayGone,
    StoreError,
)
from vllm_plugins.core.process import Completed
from vllm_plugins.startup import _recovery, activation, last_failure, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup._trial import alongside
from vllm_plugins.startup.marker import Failure
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vllm_plugins.startup.marker import Marker

LOCK = b"a lock\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Path]:
    caplog.set_level(logging.INFO, logger="vllm.plugins.manager")
    with overlays.process(tmp_path, monkeypatch):
        monkeypatch.setenv("VLLM_PLUGIN_LOCK", str(tmp_path / "config" / "plugins.lock"))
        (tmp_path / "config" / "plugins.lock").write_bytes(LOCK)
        yield tmp_path


def settings(**fields: Any) -> Settings:
    return Settings.from_environment().replace(**fields)


class Child:
    """The child process that installs: its command line, and what it ends with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stdout: str, returncode: int = 0, stderr: str = "") -> None:
        self.argv: list[str] = []
        self.done = Completed(returncode=returncode, stdout=stdout, stderr=stderr, result=stdout)
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: list[str], **options: Any) -> Completed:
        self.argv = argv
        assert (options["check"], options["result_variable"]) == (False, variables.RESULT)
        options["on_line"]("progress")
        return self.done


def test_a_child_process_installs_for_the_same_lock_store_and_base(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marker = overlays.write(home / "store", LOCK, {})
    monkeypatch.setenv("VLLM_PLUGIN_CONFIG", str(home / "config" / "plugins.yaml"))
    child = Child(monkeypatch, json.dumps({"overlay": marker.key}))
    assert _recovery.synchronise(settings(), ("/base", "/more")) == marker
    assert child.argv == [
        *(sys.executable, "-P", "-m", "vllm_plugins", "sync", "--startup=install", "--json"),
        *("--lock", f"{home}/config/plugins.lock", "--registry-dir", f"{home}/store"),
        *("--base-path", "/base", "--base-path", "/more"),
    ]
    where = f"Plugins are not up to date with {home}/config/plugins.lock"
    assert [record.getMessage() for record in caplog.records] == [f"{where}: installing", "progress"]
    (home / "config" / "plugins.yaml").write_text("plugins: []\n")
    _recovery.synchronise(settings(frozen=True), ())
    assert child.argv[5] == "--startup=all"
    assert child.argv[6:] == [
        *("--json", "--lock", f"{home}/config/plugins.lock", "--registry-dir", f"{home}/store"),
        *("--config", f"{home}/config/plugins.yaml"),
    ]
    assert caplog.records[2].getMessage() == f"{where}: checking, because VLLM_PLUGIN_FROZEN=1 forbids to install"


def test_the_error_of_the_child_process_is_raised(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = BaseMismatch("the base differs", where="there", details=("a", "b"), next_step="do it")
    Child(monkeypatch, json.dumps(told.to_dict()), returncode=5)
    with pytest.raises(BaseMismatch) as caught:
        _recovery.synchronise(settings(), ())
    assert str(caught.value) == str(told)


@pytest.mark.parametrize(
    ("stdout", "returncode"),
    [
        ("", -9),
        ("", 0),
        ("no JSON", 1),
        ("[]", 1),
        ("{}", 1),
        ("{}", 0),
        ('"x"', 0),
        ("5", 0),
        ("null", 1),
        ('{"error": [], "what": "x"}', 1),
        ('{"error": "x", "what": 5}', 1),
    ],
)
def test_a_child_process_that_ends_without_a_report_is_an_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, stdout: str, returncode: int
) -> None:
    Child(monkeypatch, stdout, returncode, stderr="\n".join(str(number) for number in range(30)))
    with pytest.raises(CommandFailed) as caught:
        _recovery.synchronise(settings(), ())
    error = caught.value
    how = process.status(returncode)
    assert error.what == f"the child process that installs plugins ended with {how} and no report"
    assert error.details == tuple(str(number) for number in range(10, 30))
    assert (error.returncode, error.stdout, error.stderr[:3]) == (returncode, stdout, "0\n1")


def test_an_overlay_that_is_removed_right_after_its_installation_is_gone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Child(monkeypatch, json.dumps({"overlay": "0" * 32}))
    with pytest.raises(OverlayGone):
        _recovery.synchronise(settings(), ())


def published(home: Path, *locks: bytes, project: str = "config", **fields: Any) -> list[Marker]:
    """Overlays that were active one after the other."""
    markers = [overlays.write(home / "store", lock, {}, **fields) for lock in locks]
    for marker in markers:
        overlay.mirror(home / "store", marker, home / project / "plugins.lock")
    return markers


def fall_back(
    error: Exception | None = None,
    *,
    refuse: tuple[str, ...] = (),
    leave: Callable[[], None] = activation.deactivate,
    **fields: Any,
) -> Marker | None:
    """Fall back after an error; overlays whose keys are refused are not accepted."""

    def secure(marker: Marker) -> None:
        if marker.key in refuse:
            raise StoreError("it is refused")

    failed: Any = InstallError("it failed") if error is None else error
    return _recovery.fall_back(settings(**fields), failed, leave=leave, secure=secure)


def test_with_fail_the_error_stops_vllm(home: Path) -> None:
    published(home, b"older\n")
    with pytest.raises(InstallError, match="it failed"):
        fall_back()
    assert variables.inherited(variables.FALLBACK) is None
    assert not variables.is_disabled()
    noted = last_failure.read(settings())
    assert noted is not None
    assert noted.error.what == "it failed"


def test_with_continue_this_process_and_its_children_go_on_without_plugins(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(home, b"older\n")
    assert fall_back(on_error="continue") is None
    assert variables.is_disabled()
    assert variables.inherited(variables.FALLBACK) == ""
    assert caplog.records[-1].getMessage() == "it failed [install-failed]\n  going on without plugins"
    assert caplog.records[-1].levelno == logging.ERROR


def test_with_previous_the_overlay_that_was_active_last_is_used(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, last = published(home, b"oldest\n", b"older\n")
    assert fall_back(on_error="previous") == last
    assert not variables.is_disabled()
    assert caplog.records[-1].getMessage() == (
        f"it failed [install-failed]\n  going on with the previous overlay, {last.key}"
    )


def test_with_previous_an_overlay_of_another_project_is_not_used(home: Path) -> None:
    published(home, b"theirs\n", project="theirs")
    with pytest.raises(InstallError) as caught:
        fall_back(on_error="previous")
    assert caught.value.details == ("no previous overlay of this lock fits this environment",)
    assert variables.inherited(variables.FALLBACK) is None


FAILURE = {"group": "vllm.general_plugins", "name": "probe", "what": "it fails", "found": ""}


@pytest.mark.parametrize("fault", ["another base", "another interpreter", "a failing plugin", "refused", "no marker"])
def test_with_previous_an_overlay_that_can_not_be_used_is_passed_over(
    home: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    (good,) = published(home, b"oldest\n")
    fields: dict[str, dict[str, Any]] = {
        "another base": {"bases": ("0" * 32,)},
        "another interpreter": {"interpreter": "another"},
        "a failing plugin": {"failures": (Failure(base=overlay.fingerprint(), **FAILURE),)},
    }
    (bad,) = published(home, b"older\n", **fields.get(fault, {}))
    if fault == "no marker":
        (overlay.directory(home / "store", bad.key) / overlay.MARKER).unlink()
    assert fall_back(on_error="previous", refuse=(bad.key,) if fault == "refused" else ()) == good
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ([f"Overlay {bad.key[:12]} can't be used: it is refused"] if fault == "refused" else [])


def test_with_previous_the_overlay_whose_plugin_fails_is_not_its_own_replacement(home: Path) -> None:
    older, failing = published(home, b"older\n", LOCK)
    activation.activate(home / "store", failing.key)
    assert fall_back(LoadError("it fails"), on_error="previous") == older
    assert activation.active_key() is None
    assert fall_back(LoadError("it fails"), on_error="previous") == failing  # which is not active: it is another's


def test_a_plugin_that_can_not_be_loaded_may_be_damaged(home: Path) -> None:
    (marker,) = published(home, LOCK)
    (overlay.directory(home / "store", marker.key) / "site" / "extra.py").touch()
    activation.activate(home / "store", marker.key)
    with pytest.raises(Exception, match="the overlay is not as it was installed: 1 file differs"):
        fall_back(LoadError("it fails"))
    with pytest.raises(InstallError, match="it failed"):
        fall_back()


def test_child_processes_follow_the_fallback_of_their_parent(home: Path) -> None:
    (older,) = published(home, b"older\n")
    fall_back(on_error="previous")
    assert _recovery.inherited(settings(on_error="previous"), LOCK) == older


@pytest.mark.parametrize(
    "change", ["policy", "lock", "no lock", "store", "path", "base", "pruned", "nothing passed on"]
)
def test_a_fallback_counts_only_for_the_same_lock_store_and_policy(home: Path, change: str) -> None:
    (older,) = published(home, b"older\n")
    fall_back(on_error="previous")
    lock: bytes | None = LOCK
    found = settings(on_error="previous")
    if change == "policy":
        found = settings(on_error="fail")
    elif change == "lock":
        lock = b"another\n"
    elif change == "no lock":
        lock = None
    elif change == "store":
        found = found.replace(store=home / "another")
    elif change == "path":
        found = found.replace(lock=home / "another" / "plugins.lock")
    elif change == "base":
        path = overlay.directory(home / "store", older.key) / overlay.MARKER
        path.write_text(older.replace(bases=("0" * 32,)).to_json())
    elif change == "pruned":
        (overlay.directory(home / "store", older.key) / overlay.MARKER).unlink()
    else:
        variables.pass_on(variables.FALLBACK, None)
    assert _recovery.inherited(found, lock) is None


def test_a_link_to_another_overlay_and_one_to_another_store_are_distinguished(home: Path) -> None:
    one, two = "a" * 32, "b" * 32
    sys.path.append(f"/elsewhere/overlays/{one}/site")
    found = settings()
    step = "vllm-plugins sync --bake, or vllm-plugins sync --unbake"
    for key, expected in ((two, f"overlay {two[:12]}"), (None, "no overlay, because there is no lock")):
        error = _recovery.wrong_link(found, one, key)
        assert error.what == "the overlay that is linked into the interpreter is not the lock's"
        assert (error.where, error.expected, error.found) == (str(found.lock), expected, f"overlay {one[:12]}")
        assert error.next_step == step
    error = _recovery.wrong_link(found, one, one)
    assert error.what == "the overlay that is linked into the interpreter is in another store"
    assert (error.where, error.expected) == (str(found.lock), f"overlay {one[:12]} in {found.store}")
    assert (error.found, error.next_step) == (f"/elsewhere/overlays/{one}/site", step)


@pytest.mark.parametrize("policy", ["previous", "continue"])
@pytest.mark.parametrize("why", ["overrides", "another node", "an expectation"])
def test_no_policy_lets_a_process_differ_from_what_must_stay(
    home: Path, monkeypatch: pytest.MonkeyPatch, policy: str, why: str
) -> None:
    published(home, b"older\n")
    if why == "overrides":
        monkeypatch.setattr(activation, "fronts", lambda: ["/store/overlays/x/front"])
    elif why == "an expectation":
        monkeypatch.setenv("VLLM_PLUGIN_EXPECT", "what the first node has")
    error: Any = NodeMismatch("another node differs") if why == "another node" else InstallError("it failed")
    with pytest.raises(type(error)) as caught:
        fall_back(error, on_error=policy)
    (detail,) = caught.value.details
    assert detail.startswith(f"VLLM_PLUGIN_ON_ERROR={policy} has no effect: ")
    assert variables.inherited(variables.FALLBACK) is None
    assert not variables.is_disabled()
    assert variables.inherited(variables.EXPECT) == ("what the first node has" if why == "an expectation" else None)


@pytest.mark.parametrize(("value", "left"), [("any", "any"), ("of this node", None)])
def test_a_process_that_falls_back_is_not_compared_with_its_parent(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str, left: str | None
) -> None:
    published(home, b"older\n")
    monkeypatch.setenv("VLLM_PLUGIN_EXPECT", value)
    monkeypatch.setattr(activation, "_expected", (value, "passed on"))
    with pytest.raises(InstallError):
        fall_back(leave=lambda: None)
    assert variables.inherited(variables.EXPECT) == value
    assert fall_back(on_error="previous", leave=lambda: None) is not None
    assert variables.inherited(variables.EXPECT) == left


def test_with_fail_nothing_is_added_to_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "fronts", lambda: ["/store/overlays/x/front"])
    with pytest.raises(InstallError) as caught:
        fall_back()
    assert caught.value.details == ()


@pytest.mark.parametrize("what", ["not tried yet", "allowlist"])
def test_with_previous_an_overlay_that_was_not_tried_with_this_base_is_not_used(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    base = overlay.fingerprint()
    failure = Failure(base=base, **FAILURE)
    published(home, b"older\n", **({"trials": (base,)} if what == "not tried yet" else {"failures": (failure,)}))
    with pytest.raises(InstallError):
        fall_back(on_error="previous")


def test_an_overlay_that_is_not_confirmed_is_not_blamed(home: Path) -> None:
    """The error is then of the comparison, and the overlay may be the one to go back to."""
    older, active = published(home, b"older\n", LOCK)
    (overlay.directory(home / "store", active.key) / "site" / "extra.py").touch()
    activation.activate(home / "store", active.key)
    variables.pass_on(variables.CONFIRMED, None)
    with pytest.raises(LoadError, match="it fails"):
        fall_back(LoadError("it fails"))
    activation.activate(home / "store", active.key)
    variables.pass_on(variables.CONFIRMED, None)
    assert fall_back(LoadError("it fails"), on_error="previous") == active != older


def test_an_overlay_is_not_blamed_for_an_installation_that_failed(home: Path) -> None:
    """It may be the one of a parent process, to which this one goes back."""
    (active,) = published(home, LOCK)
    (overlay.directory(home / "store", active.key) / "site" / "extra.py").touch()
    activation.activate(home / "store", active.key)
    assert fall_back(on_error="previous", leave=lambda: None) == active
    with pytest.raises(InstallError, match="it failed"):
        fall_back()


def test_a_load_check_runs_alongside_what_was_just_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def begin(found: Settings, marker: Marker, check: Callable[[], object]) -> None:
        assert found == settings()
        begun.append(marker.key)
        check()

    monkeypatch.setattr(alongside, "begin", begin)
    fresh, other = (
        overlays.write(home / "store", lock, {}, trials=trials)
        for lock, trials in ((LOCK, (overlay.fingerprint(("/base",)),)), (b"b\n", ("0" * 32,)))
    )
    child = Child(monkeypatch, json.dumps({"overlay": fresh.key}))
    assert _recovery.synchronise(settings(), ("/base",)) == fresh
    assert (begun, child.argv[5]) == ([fresh.key], "--startup=check")
    for fields in ({"frozen": True}, {"on_error": "previous"}, {"on_error": "continue"}):
        _recovery.synchronise(settings(**fields), ("/base",))
        assert (begun, child.argv[5]) == ([fresh.key], "--startup=all")
    child = Child(monkeypatch, json.dumps({"overlay": other.key}))
    _recovery.synchronise(settings(), ("/base",))
    assert (begun, child.argv[5]) == ([fresh.key], "--startup=install")


def test_the_trial_of_a_parent_process_is_joined(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = overlays.write(home / "store", LOCK, {})
    asked: list[bytes | None] = []

    def inherited(found: Settings, lock: bytes | None) -> Marker:
        assert found == settings()
        asked.append(lock)
        return marker

    monkeypatch.setattr(alongside, "inherited", inherited)
    child = Child(monkeypatch, "", returncode=1)
    assert _recovery.synchronise(settings(), ()) == marker
    (home / "config" / "plugins.lock").unlink()
    assert _recovery.synchronise(settings(), ()) == marker
    assert (asked, child.argv) == ([LOCK, None], [])


def test_an_overlay_that_can_not_be_held_says_why(home: Path) -> None:
    where = str(overlay.directory(home / "store", "k" * 32))
    gone = _recovery.not_held(home / "store", "k" * 32, FileNotFoundError(2, "gone"))
    assert (type(gone), gone.what, gone.where) == (
        *(OverlayGone, "the overlay was removed from the store while it was made active", where),
    )
    locked = _recovery.not_held(home / "store", "k" * 32, BlockingIOError(11, "busy"))
    assert (type(locked), locked.what, locked.where) == (
        StoreError,
        "the overlay is locked by another process",
        where,
    )
    other = _recovery.not_held(home / "store", "k" * 32, PermissionError(13, "no"))
    assert (type(other), other.what, other.found) == (StoreError, "the overlay can't be read", "no")
    assert ["prune" in str(error.next_step) for error in (locked, other)] == [True, False]


@pytest.mark.parametrize("named", ["VLLM_PLUGIN_CONFIG", "VLLM_PLUGIN_LOCK"])
def test_a_start_without_a_named_file_stops(home: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    for name in ("VLLM_PLUGIN_CONFIG", "VLLM_PLUGIN_LOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    _recovery.check_named_files(settings())
    monkeypatch.setenv(named, str(home / "nowhere" / "file"))
    with pytest.raises(LockMissing):
        _recovery.check_named_files(settings())


def test_a_start_without_plugins_forgets_the_failure_of_another_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VLLM_PLUGIN_CONFIG", "VLLM_PLUGIN_LOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    settings().store.mkdir(parents=True, exist_ok=True)
    last_failure.note(settings(), InstallError("it failed"))
    assert last_failure.read(settings()) is not None
    _recovery.check_named_files(settings())
    assert last_failure.read(settings()) is None


def test_a_mistyped_variable_is_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marker = overlays.write(home / "store", LOCK, {})
    Child(monkeypatch, json.dumps({"overlay": marker.key}))
    monkeypatch.setenv("VLLM_PLUGIN_OFLINE", "1")
    told = "The environment variable VLLM_PLUGIN_OFLINE has no effect; did you mean VLLM_PLUGIN_OFFLINE?"
    optional = settings(optional=True)
    for start in (lambda: _recovery.synchronise(optional, ()), lambda: _recovery.check_named_files(optional)):
        caplog.clear()
        start()
        assert caplog.records[0].getMessage() == told
