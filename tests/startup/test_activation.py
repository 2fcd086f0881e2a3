"""The import path of a process: what an overlay adds to it, who holds the overlay, and what is left of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from unittest.mock import call as mock_call

import pytest

from vllm_plugins.core.errors import LoadError, OverlayGone, StoreError
from vllm_plugins.startup import _vllm_process, activation, overlay
from vllm_plugins.startup import settings as variables
from vllm_plugins.startup._trial import alongside
from vllm_plugins.startup.ranks import expectation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY, OTHER = "0" * 31 + "a", "0" * 31 + "b"
FINDER = (
    "import sys\nclass Finder:\n    def find_spec(self, *_):\n        return None\nsys.meta_path.append(Finder())\n"
)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process without an overlay, which is afterwards as it was."""
    for name in (variables.CONFIRMED, variables.EXPECT, "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(activation, "_active", None)
    monkeypatch.setattr(activation, "_held", {})
    modules = dict(sys.modules)
    yield
    for descriptor in activation._held.values():
        os.close(descriptor)
    for name in sys.modules.keys() - modules.keys():
        if name.startswith(("probe", "finder_of", "added")):
            del sys.modules[name]


def put(store: Path, key: str = KEY, **files: str) -> Path:
    """An overlay with these files; their names have ``__`` for a dot."""
    site = overlay.directory(store, key) / overlay.SITE
    site.mkdir(parents=True)
    for name, text in files.items():
        (site / name.replace("__", ".")).write_text(text)
    return site


def locked(path: Path) -> bool:
    """Whether a process holds a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def taken(path: Path, kind: int) -> Iterator[Callable[[], None]]:
    """Another process that has locked a directory; yields how it ends."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, kind)
        yield stack.close


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Clock:
    """Time that passes only while the process sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 1000.0, 0.0
        self.event: Callable[[], object] = lambda: None
        monkeypatch.setattr("time.sleep", self.sleep)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        assert self.slept < 100, "it waits for ever"
        if self.slept > 5:
            self.event()


def test_an_overlay_without_path_files_is_not_searched_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = put(tmp_path)
    (site / "later.pth").write_text(f"{tmp_path}\n", encoding="utf-8")  # nothing that was published
    before = list(sys.path)
    activation.activate(tmp_path, KEY, path_files=False)
    assert sys.path == [*before, str(site)]
    activation.deactivate()
    assert sys.path == before
    monkeypatch.setattr(sys, "path", [*before, str(site)])
    activation.activate(tmp_path, KEY, path_files=False)
    assert sys.path == [*before, str(site)]


def test_an_active_overlay_is_at_the_end_of_the_path(tmp_path: Path) -> None:
    site = put(tmp_path)
    before = list(sys.path)
    assert activation.active_key() is None
    activation.activate(tmp_path, KEY)
    assert sys.path == [*before, str(site)]
    assert activation.active_key() == KEY
    assert activation.is_confirmed(KEY)
    assert os.environ[variables.CONFIRMED].startswith(f"{KEY}:")
    assert locked(site)
    activation.deactivate()
    assert sys.path == before
    assert activation.active_key() is None
    assert not activation.is_confirmed(KEY)
    assert not locked(site)


def test_an_overlay_is_made_active_once(tmp_path: Path) -> None:
    put(tmp_path, runs__pth="import sys; sys.probe_runs = getattr(sys, 'probe_runs', 0) + 1\n")
    try:
        for _ in range(2):
            activation.activate(tmp_path, KEY)
        assert sys.probe_runs == 1  # type: ignore[attr-defined]
    finally:
        del sys.probe_runs  # type: ignore[attr-defined]
    put(tmp_path, OTHER)
    activation.activate(tmp_path, OTHER)
    assert activation.active_key() == OTHER


def test_path_entries_of_pth_files_leave_with_the_overlay(tmp_path: Path) -> None:
    site = put(tmp_path, adds__pth="added\n", finds__pth="import finder_of_probe\n", finder_of_probe__py=FINDER)
    (site / "added").mkdir()
    (site / "added" / "added_module.py").write_text("")
    before, finders = list(sys.path), list(sys.meta_path)
    activation.activate(tmp_path, KEY)
    assert sys.path == [*before, str(site), f"{site}/added"]
    assert len(sys.meta_path) == len(finders) + 1
    __import__("added_module")
    assert str(site / "added") in sys.path_importer_cache
    activation.deactivate(forget_modules=True)
    assert (sys.path, sys.meta_path) == (before, finders)
    assert not [entry for entry in sys.path_importer_cache if entry.startswith(str(tmp_path))]
    assert not {"added_module", "finder_of_probe"} & sys.modules.keys()


def test_what_the_code_of_a_path_file_adds_from_elsewhere_leaves_with_the_overlay(tmp_path: Path) -> None:
    """No line of the file names the directory, and the class of the finder is of no module of the overlay."""
    elsewhere = str(tmp_path / "elsewhere")
    code = f"import sys; sys.path.append({elsewhere!r}); sys.meta_path.append(type('Finder', (), FIND)())\n"
    put(tmp_path, adds__pth=code.replace("FIND", "{'find_spec': lambda *_: None}"))
    before, finders = list(sys.path), list(sys.meta_path)
    activation.activate(tmp_path, KEY)
    assert elsewhere in sys.path
    assert len(sys.meta_path) == len(finders) + 1
    activation.deactivate()
    assert (sys.path, sys.meta_path) == (before, finders)


def test_finders_and_hooks_of_a_plugin_leave_with_the_overlay(tmp_path: Path) -> None:
    put(tmp_path, finds__pth="import finder_of_probe\n", finder_of_probe__py=FINDER, finder_of_more__py=FINDER)
    finders = list(sys.meta_path)
    activation.activate(tmp_path, KEY)
    __import__("finder_of_more")
    assert len(sys.meta_path) == len(finders) + 2
    activation.deactivate(forget_modules=True)
    assert sys.meta_path == finders


def test_modules_stay_unless_they_are_to_be_forgotten(tmp_path: Path) -> None:
    put(tmp_path, probe_one__py="")
    activation.activate(tmp_path, KEY)
    __import__("probe_one")
    activation.deactivate()
    assert "probe_one" in sys.modules
    assert "vllm_plugins.startup.activation" in sys.modules


def test_only_modules_of_the_overlay_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = put(tmp_path, probe_one__py="")
    modules = {"probe_inside": f"{site}/deep/x.py", "probe_next": f"{site}x/x.py", "probe_none": None}
    for name, file in modules.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__file__=file))
    activation.activate(tmp_path, KEY)
    activation.deactivate(forget_modules=True)
    assert modules.keys() & sys.modules.keys() == {"probe_next", "probe_none"}


def test_a_directory_that_is_on_the_path_is_not_added_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    site = put(tmp_path, adds__pth=f"{there}\n")
    sys.path.append(f"{there}/.")
    before = list(sys.path)
    activation.activate(tmp_path, KEY)
    assert sys.path == [*before, str(site)]
    activation.deactivate()
    assert sys.path == before


def test_an_overlay_that_a_parent_process_has_put_on_the_path_is_taken_off_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that its path files added come after it. Those before it were there without it."""
    site = put(tmp_path, adds__pth="added\n\n../shared\n# import\n", other__txt="beyond\n")
    finder = SimpleNamespace(__module__="probe_finders")
    instance = type("Finder", (), {"__module__": "probe_finders"})()
    instance.__module__ = None
    kept = [SimpleNamespace(__module__=name) for name in ("probe_elsewhere", "probe_builtin", "probe_missing")]
    modules: dict[str, Any] = {
        "probe_finders": SimpleNamespace(__file__=f"{site}/finders.py"),
        "probe_elsewhere": SimpleNamespace(__file__=None),
        "probe_builtin": SimpleNamespace(),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    before = list(sys.path)
    shared, finders = str(site.parent / "shared"), list(sys.meta_path)
    sys.path += [shared, str(site), f"{site}/added", shared, f"{site}/beyond", "relative"]
    sys.meta_path += [finder, instance, *kept]
    activation.hold(tmp_path, KEY)
    assert activation.active_key() == KEY
    activation.deactivate()
    assert sys.path == [*before, f"{site}/beyond", "relative"]
    assert sys.meta_path == [*finders, *kept]
    assert activation._held == {}


def test_without_an_overlay_nothing_is_taken_off(tmp_path: Path) -> None:
    activation.deactivate()  # the first call imports what it needs
    before, finders, cache = list(sys.path), list(sys.meta_path), set(sys.path_importer_cache)
    modules = set(sys.modules)
    activation.deactivate(forget_modules=True)
    assert (sys.path, sys.meta_path, set(sys.path_importer_cache)) == (before, finders, cache)
    assert set(sys.modules) == modules


@pytest.mark.parametrize("reverse", [False, True])
def test_an_overlay_of_which_some_path_files_can_not_be_read_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    site = put(tmp_path, one__pth="one\n", two__pth="two\n")
    (site / "directory.pth").mkdir()
    (site / "bytes.pth").write_bytes(b"\xff\nthree\n")
    before = list(sys.path)
    sys.path += [str(site), f"{site}/one", f"{site}/two", f"{site}/three"]
    real: Any = os.listdir
    monkeypatch.setattr("os.listdir", lambda path: sorted(real(path), reverse=reverse))
    activation.deactivate()
    assert sys.path == before
    sys.path.append(str(overlay.directory(tmp_path, OTHER) / overlay.SITE))
    activation.deactivate()
    assert sys.path == before


@pytest.mark.parametrize(
    ("code", "error"), [("sys.exit(3)", LoadError), ("raise KeyboardInterrupt", KeyboardInterrupt)]
)
def test_a_path_file_that_ends_the_process_leaves_nothing_behind(
    tmp_path: Path, code: str, error: type[BaseException]
) -> None:
    site = put(tmp_path, adds__pth="added\n", ends__pth=f"import sys; exec({code!r})\n")
    (site / "added").mkdir()
    before = list(sys.path)
    with pytest.raises(error) as caught:
        activation.activate(tmp_path, KEY)
    if isinstance(caught.value, LoadError):
        assert (caught.value.where, caught.value.found) == (str(site), "SystemExit: 3")
    assert sys.path == before
    assert (activation.active_key(), activation._held) == (None, {})
    assert not activation.is_confirmed(KEY)
    eval("0")  # after an interrupt in the last code of a text, Python itself ends with 130


def test_an_error_of_the_system_while_path_files_are_read_is_not_a_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("site.addsitedir", fails)
    with pytest.raises(OSError, match="Input/output error"):
        activation.activate(tmp_path, KEY)
    assert activation._held == {}
    assert not activation.is_confirmed(KEY)


def test_an_overlay_is_recognised_by_its_path(tmp_path: Path) -> None:
    site = put(tmp_path)
    assert activation.is_site(str(site))
    assert not activation.is_site(site)
    assert not activation.is_site(f"{site}/x")
    assert not activation.is_site(str(tmp_path / "overlays" / "short" / "site"))


def test_an_overlay_of_another_store_is_not_the_one_on_the_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    sys.path.append(str(put(one)))
    put(two)
    put(two, OTHER)
    (tmp_path / "linked").symlink_to(one)
    assert activation.is_on_path(one, KEY)
    assert activation.is_on_path(tmp_path / "linked", KEY)
    assert not activation.is_on_path(two, KEY)
    assert activation.is_on_path(two, OTHER)  # of a key that is not on the path, there is no other
    sys.path.append(str(two / "overlays" / KEY / "site"))
    assert not activation.is_on_path(one, KEY)


def test_a_process_tells_those_that_it_starts_which_overlay_is_the_right_one() -> None:
    activation.confirm(KEY)
    assert (activation.is_confirmed(KEY), activation.is_confirmed(OTHER)) == (True, False)
    activation.deactivate()
    assert not activation.is_confirmed(KEY)


def test_an_overlay_is_held_until_it_is_released(tmp_path: Path) -> None:
    site, other = put(tmp_path), put(tmp_path, OTHER)
    activation.hold(tmp_path, KEY)
    descriptor = activation._held[KEY]
    activation.hold(tmp_path, KEY)
    assert activation._held == {KEY: descriptor}
    assert (locked(site), locked(other)) == (True, False)
    assert not os.get_inheritable(descriptor)
    count = descriptors()
    activation.release(OTHER)
    assert locked(site)
    activation.release(KEY)
    activation.release(KEY)
    assert not locked(site)
    assert descriptors() == count - 1


def test_the_overlay_that_is_on_the_path_is_held_whatever_the_store_is(tmp_path: Path) -> None:
    used, other = put(tmp_path / "one"), put(tmp_path / "two")
    sys.path += [str(put(tmp_path / "one", OTHER)), str(used)]
    activation.hold(tmp_path / "two", KEY)
    assert (locked(used), locked(other)) == (True, False)


def test_several_processes_hold_one_overlay(tmp_path: Path) -> None:
    with taken(put(tmp_path), fcntl.LOCK_SH):
        activation.hold(tmp_path, KEY)
    assert KEY in activation._held


def test_a_process_waits_for_one_that_looks_at_the_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, site = Clock(monkeypatch), put(tmp_path)
    count = descriptors()
    with taken(site, fcntl.LOCK_EX) as end:
        clock.event = end
        activation.hold(tmp_path, KEY)
    assert 5 < clock.slept < 5.1
    assert descriptors() == count + 1


def test_a_process_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, site = Clock(monkeypatch), put(tmp_path)
    count = descriptors()
    with taken(site, fcntl.LOCK_EX), pytest.raises(StoreError) as caught:
        activation.hold(tmp_path, KEY)
    assert activation.HOLD_PATIENCE < clock.slept < activation.HOLD_PATIENCE + 0.1
    error = caught.value
    assert (error.what, error.where) == ("the overlay is locked by another process", str(site.parent))
    assert error.found == "Resource temporarily unavailable"
    assert error.next_step == "wait until vllm-plugins prune or sync has ended, and start again"
    assert (activation._held, descriptors()) == ({}, count)


def test_an_overlay_that_is_replaced_while_it_is_locked_is_locked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = put(tmp_path)
    real: Any = fcntl.flock
    moved: list[Path] = []

    def replace_first(descriptor: int, kind: int) -> None:
        if not moved:
            moved.append(site.rename(tmp_path / "replaced"))
            site.mkdir()
        real(descriptor, kind)

    count = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", replace_first)
        activation.hold(tmp_path, KEY)
    assert (locked(site), locked(tmp_path / "replaced")) == (True, False)
    assert descriptors() == count + 1


def test_an_overlay_that_is_removed_while_it_is_locked_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = put(tmp_path)
    monkeypatch.setattr("fcntl.flock", lambda *_: site.rename(tmp_path / "removed"))
    count = descriptors()
    with pytest.raises(OverlayGone) as caught:
        activation.hold(tmp_path, KEY)
    assert caught.value.where == str(site.parent)
    assert (activation._held, descriptors()) == ({}, count)


def test_a_missing_overlay_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OverlayGone):
        activation.hold(tmp_path, KEY)
    assert activation._held == {}


def test_an_overlay_that_can_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = put(tmp_path)
    site.rmdir()
    site.touch()
    with pytest.raises(StoreError) as caught:
        activation.hold(tmp_path, KEY)
    error = caught.value
    assert (error.what, error.where) == ("the overlay can't be read", str(site.parent))
    assert (error.found, error.next_step) == ("Not a directory", "give this user read access to it")

    def fails(*_: object) -> int:
        raise OSError("no reason")

    monkeypatch.setattr("os.open", fails)
    with pytest.raises(StoreError) as caught:
        activation.hold(tmp_path, KEY)
    assert caught.value.found == "no reason"


def test_an_overlay_is_used_where_file_locks_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fails)
    activation.hold(tmp_path, KEY)
    assert KEY in activation._held


@pytest.mark.parametrize("optimize", [0, 1, 2])
def test_an_optimised_python_writes_no_bytecode_into_an_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimize: int
) -> None:
    """Its bytecode has another name than the published one. Child processes import before they call the hook."""
    put(tmp_path)
    process = SimpleNamespace(flags=SimpleNamespace(optimize=optimize), dont_write_bytecode=False)
    monkeypatch.setattr(activation, "sys", process)
    activation.hold(tmp_path, KEY)
    assert process.dont_write_bytecode is bool(optimize)
    assert os.environ.get("PYTHONDONTWRITEBYTECODE") == ("1" if optimize else None)


@pytest.mark.parametrize(
    ("told", "known", "expected"),
    [
        (None, None, True),
        (None, (f"overlay={OTHER}", "own"), True),
        (f"overlay={KEY} base={OTHER}", None, True),
        (f"overlay={OTHER} base={OTHER}", None, False),
        (f"overlay={OTHER}", (f"overlay={OTHER}", "compared"), True),
        (f"overlay={OTHER}", (f"overlay={OTHER}", "passed on"), True),
        (f"overlay={OTHER}", (f"overlay={OTHER}", "own"), False),
        (f"overlay={KEY}", (f"overlay={OTHER}", "compared"), False),
    ],
)
def test_an_overlay_on_the_path_is_the_expected_one_or_is_compared(
    monkeypatch: pytest.MonkeyPatch, told: str | None, known: tuple[str, str] | None, expected: bool
) -> None:
    variables.pass_on(variables.EXPECT, told)
    monkeypatch.setattr(activation, "_expected", known)
    assert activation.is_expected(KEY) is expected


@pytest.mark.parametrize(
    ("told", "known", "confirmed", "expected"),
    [
        (None, None, None, False),
        ("any", None, None, False),
        (f"overlay={KEY}", None, None, True),
        (f"overlay={KEY}", None, "here", False),
        (f"overlay={KEY}", None, f"{KEY}:0:elsewhere", True),
        (f"overlay={KEY}", (f"overlay={KEY}", "passed on"), None, False),
        (f"overlay={OTHER}", (f"overlay={KEY}", "passed on"), None, True),
        (f"overlay={KEY}", (f"overlay={KEY}", "compared"), None, True),
        (f"overlay={KEY}", (f"overlay={KEY}", "own"), None, True),
    ],
)
def test_the_value_of_another_node_or_the_user_is_distinguished_from_this_nodes_own(
    monkeypatch: pytest.MonkeyPatch,
    told: str | None,
    known: tuple[str, str] | None,
    confirmed: str | None,
    expected: bool,
) -> None:
    variables.pass_on(variables.EXPECT, told)
    variables.pass_on(variables.CONFIRMED, None if confirmed == "here" else confirmed)
    if confirmed == "here":
        activation.confirm(KEY)
    monkeypatch.setattr(activation, "_expected", known)
    assert activation.has_foreign_expectation() is expected


def test_what_somebody_else_expects_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"overlay={KEY}"
    variables.pass_on(variables.EXPECT, told)
    for known in (None, (told, "compared"), (f"overlay={OTHER}", "passed on")):
        monkeypatch.setattr(activation, "_expected", known)
        activation.finish(None)
        assert variables.inherited(variables.EXPECT) == told
        activation.deactivate()
        assert variables.inherited(variables.EXPECT) == told


def test_what_this_process_expects_is_passed_on_and_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_expected", (f"overlay={KEY}", "own"))
    activation.finish(None)
    assert variables.inherited(variables.EXPECT) == f"overlay={KEY}"
    activation.deactivate()
    assert variables.inherited(variables.EXPECT) is None


def test_nothing_serves_before_a_load_check_alongside_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[bool] = []
    monkeypatch.setattr(alongside, "settle", lambda: settled.append(True))
    activation.finish(None)
    assert settled == []
    monkeypatch.setenv(variables.TRIAL, "a trial")
    activation.finish(None)
    assert settled == [True]


@pytest.mark.parametrize(
    ("module", "observer", "function"),
    [("torch.distributed", _vllm_process, "compare_ranks"), ("prometheus_client", _vllm_process, "show")],
)
def test_groups_are_compared_and_metrics_shown_in_a_process_that_has_their_modules(
    monkeypatch: pytest.MonkeyPatch, module: str, observer: ModuleType, function: str
) -> None:
    call = Mock()
    monkeypatch.setattr(observer, function, call)
    for name in ("torch.distributed", "prometheus_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    activation.finish(None)
    call.assert_not_called()
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    active: Any = (object(), object())
    activation.finish(active)
    call.assert_called_once_with(active)


@pytest.mark.parametrize(
    ("told", "known", "confirmed", "compared", "after"),
    [
        (None, None, True, False, ("same", "own")),
        ("same", None, True, False, ("same", "compared")),
        ("same", None, False, True, ("same", "compared")),
        ("other", None, True, True, ("other", "compared")),
        ("other", ("same", "own"), True, True, ("other", "compared")),
        ("same", ("same", "own"), True, True, ("same", "compared")),
    ],
)
def test_only_a_value_that_a_parent_has_compared_on_this_node_is_compared_as_text_alone(
    monkeypatch: pytest.MonkeyPatch,
    told: str | None,
    known: tuple[str, str] | None,
    confirmed: bool,
    compared: bool,
    after: tuple[str, str],
) -> None:
    marker: Any = SimpleNamespace(key=KEY, expectation=lambda _listing, _base: "same")
    settings: Any = object()
    variables.pass_on(variables.EXPECT, told)
    activation.confirm(KEY if confirmed else OTHER)
    monkeypatch.setattr(activation, "_expected", known)
    monkeypatch.setattr(expectation, "compare", compare := Mock())
    activation.expect(settings, marker, "listing", "base")
    assert compare.mock_calls == ([mock_call(told, settings, marker, "listing")] if compared else [])
    assert activation._expected == after


def test_a_process_without_plugins_expects_nothing_of_others_and_is_always_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: Any = object()
    monkeypatch.setattr(activation, "_expected", None)
    activation.expect(settings, None, "", "")
    assert activation._expected is None
    variables.pass_on(variables.EXPECT, "value")
    monkeypatch.setattr(expectation, "compare", compare := Mock())
    activation.expect(settings, None, "", "")
    assert compare.mock_calls == [mock_call("value", settings, None, "")]
