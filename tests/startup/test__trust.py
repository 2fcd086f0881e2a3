from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.sandbox import needs_root
from vllm_plugins.core.errors import NotTrusted
from vllm_plugins.startup import _trust, permissions
from vllm_plugins.startup import overlay as layout
from vllm_plugins.startup.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 12345


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A place in which all is as it should be."""
    root = tmp_path / "place"
    (root / "store" / "overlays").mkdir(parents=True)
    for name in ("plugins.yaml", "plugins.lock"):
        (root / name).touch(mode=0o644)
    env = {"VLLM_PLUGIN_CONFIG": str(root / "plugins.yaml"), "VLLM_PLUGIN_REGISTRY_DIR": str(root / "store")}
    return Settings.from_environment(env)


@pytest.fixture
def overlay(settings: Settings) -> Path:
    directory = settings.store / "overlays" / ("0" * 32)
    (directory / "site").mkdir(parents=True)
    (directory / "overlay.json").touch(mode=0o644)
    return directory


def test_files_of_this_user_are_trusted(settings: Settings, overlay: Path) -> None:
    _trust.check(settings)
    _trust.check_store(settings)
    _trust.check_overlay(settings, overlay)


def test_missing_files_are_not_the_trust_checks_business(tmp_path: Path) -> None:
    _trust.check(Settings.from_environment({"HOME": str(tmp_path)}))


@needs_root
@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock", "store", "store/overlays"])
def test_another_users_file_is_refused(settings: Settings, name: str) -> None:
    path = settings.manifest.parent / name
    os.chown(path, OTHER, -1)
    with pytest.raises(NotTrusted, match=f"another user owns {path}"):
        _trust.check(settings)
    _trust.check(settings.replace(trust="any"))


def test_paths_of_their_own_are_checked_without_the_store(settings: Settings) -> None:
    """The cache is one: the store has a check of its own."""
    (settings.store / "overlays").chmod(0o777)
    _trust.check_paths(settings, str(settings.manifest), str(settings.lock))
    for check in (_trust.check, _trust.check_store):
        with pytest.raises(NotTrusted, match="all users can write to"):
            check(settings)


@needs_root
def test_the_owner_of_this_package_is_trusted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the manager decides what runs anyway."""
    os.chown(settings.lock, OTHER, -1)
    package = settings.manifest.parent / "package"
    package.mkdir()
    monkeypatch.setattr(_trust, "__file__", str(package / "_trust.py"))
    with pytest.raises(NotTrusted):
        _trust.check(settings)
    os.chown(package, OTHER, -1)
    _trust.check(settings)


@needs_root
def test_root_is_trusted_by_every_user(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    package = settings.manifest.parent / "package"
    package.mkdir()
    os.chown(package, OTHER + 1, -1)
    monkeypatch.setattr(_trust, "__file__", str(package / "_trust.py"))
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    _trust.check(settings)
    os.chown(settings.lock, OTHER, -1)
    _trust.check(settings)
    os.chown(settings.lock, OTHER + 2, -1)
    with pytest.raises(NotTrusted):
        _trust.check(settings)


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock", "store", "store/overlays"])
def test_a_file_that_all_users_can_write_is_refused(settings: Settings, name: str) -> None:
    path = settings.manifest.parent / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(NotTrusted, match=f"all users can write to {path}"):
        _trust.check(settings)
    path.chmod(path.stat().st_mode & ~0o002 | 0o020)
    _trust.check(settings)  # a group of this user's


@needs_root
@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock", "store", "store/overlays", ""])
def test_a_path_that_a_foreign_group_can_write_is_refused(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.manifest.parent / name
    os.chown(path, -1, OTHER)
    _trust.check(settings)
    path.chmod(path.stat().st_mode | 0o020)
    what = "write to" if name else "rename files in"
    with pytest.raises(NotTrusted, match=f"a group that you are not in can {what} {path}") as caught:
        _trust.check(settings)
    assert str(caught.value.next_step).startswith(f"chmod g-w {path}, ")
    monkeypatch.setattr(os, "getgroups", lambda: [OTHER])
    _trust.check(settings)


@needs_root
@pytest.mark.parametrize("group", [1, OTHER])
def test_the_group_of_root_may_write_and_no_other_group_that_this_user_is_not_in(
    settings: Settings, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.store.chmod(0o775)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 4)
    os.chown(settings.store, -1, 0)
    _trust.check_store(settings)
    os.chown(settings.store, -1, group)
    with pytest.raises(NotTrusted, match="a group that you are not in"):
        _trust.check_store(settings)


@needs_root
@pytest.mark.parametrize("group", [0, 65534])
def test_groups_that_are_not_mapped_are_nobodys(
    settings: Settings, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user namespace, those of this process and those of others look alike."""
    os.chown(settings.store, -1, 65534)
    settings.store.chmod(0o775)
    monkeypatch.setattr(os, "getgroups", lambda: [65534])
    monkeypatch.setattr(os, "getegid", lambda: group)
    if group == 65534:
        _trust.check(settings)
        return
    with pytest.raises(NotTrusted, match="a group that you are not in"):
        _trust.check(settings)


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_the_owner_of_a_directory_above_is_trusted_or_it_is_refused(settings: Settings, mode: int) -> None:
    """Its owner can replace what is below it, also with the sticky bit."""
    parent = settings.store.parent
    parent.chmod(mode)
    os.chown(parent, OTHER, -1)
    for check in (_trust.check, _trust.check_store, permissions.check_discovered):
        with pytest.raises(NotTrusted, match=f"another user owns {parent}") as caught:
            check(settings)
        assert str(caught.value.next_step).startswith(
            f"keep lock and store outside of {parent}, or mount it read-only"
        )
    _trust.check(settings.replace(trust="any"))


@needs_root
def test_the_owner_of_the_home_directory_may_own_directories_above(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job of GitHub Actions that runs in a container: it is root's, in directories of the runner's."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for path in (home, settings.store.parent):
        os.chown(path, OTHER, -1)
    _trust.check(settings)
    os.chown(settings.store, OTHER, -1)
    with pytest.raises(NotTrusted, match=f"another user owns {settings.store}"):
        _trust.check(settings)


@needs_root
def test_without_a_home_directory_the_owner_of_a_directory_called_like_it_is_not_trusted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "~").mkdir()
    for path in (tmp_path / "~", settings.store.parent):
        os.chown(path, OTHER, -1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(NotTrusted, match="another user owns"):
        _trust.check(settings)


@needs_root
def test_users_that_are_not_mapped_are_trusted_only_where_they_own_all(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(settings.store.parent, 65534, -1)
    with pytest.raises(NotTrusted, match="another user owns") as caught:
        _trust.check(settings)
    assert "owner 65534 (a user that this user namespace does not map)" in str(caught.value.found)
    real = os.stat

    class Status:
        st_uid = 65534

    monkeypatch.setattr(os, "stat", lambda path, **kw: Status() if path == "/" else real(path, **kw))
    _trust.check(settings)
    os.chown(settings.store, 65534, -1)
    with pytest.raises(NotTrusted, match=f"another user owns {settings.store}"):
        _trust.check(settings)


@needs_root
def test_a_package_of_a_user_that_is_not_mapped_makes_nobody_trusted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = settings.manifest.parent / "package"
    package.mkdir()
    os.chown(package, 65534, -1)
    monkeypatch.setattr(_trust, "__file__", str(package / "_trust.py"))
    os.chown(settings.lock, 65534, -1)
    with pytest.raises(NotTrusted, match="another user owns"):
        _trust.check(settings)


@needs_root
def test_a_link_above_counts_as_its_owner(settings: Settings, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(settings.store.parent)
    linked = settings.replace(store=link / "store")
    _trust.check(linked)
    os.chown(link, OTHER, -1, follow_symlinks=False)
    with pytest.raises(NotTrusted, match=f"another user owns the link {link}") as caught:
        _trust.check(linked)
    assert str(caught.value.next_step).startswith(f"chown -h {os.geteuid()} {link}, ")


@needs_root
def test_the_file_that_was_opened_is_checked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's file was read, and then ours was put in its place."""
    monkeypatch.setattr(layout, "opened", {})
    os.chown(settings.lock, OTHER, -1)
    layout.read_file(settings.lock)
    settings.lock.unlink()
    settings.lock.touch(mode=0o644)
    with pytest.raises(NotTrusted, match=f"another user owns {settings.lock}"):
        _trust.check(settings)
    layout.read_file(settings.lock)
    _trust.check(settings)


@needs_root
@pytest.mark.parametrize("name", ["files.json", "site/module.py", "site/__pycache__", "site/__pycache__/module.pyc"])
@pytest.mark.parametrize("how", ["owner", "group", "all"])
def test_each_file_and_directory_of_an_overlay_is_checked(
    settings: Settings, overlay: Path, name: str, how: str
) -> None:
    (overlay / "site" / "__pycache__").mkdir()
    for file in ("files.json", "site/module.py", "site/__pycache__/module.pyc"):
        (overlay / file).touch(mode=0o644)
    permissions.check_files(settings, overlay)
    path = overlay / name
    os.chown(path, OTHER if how == "owner" else -1, OTHER)
    path.chmod(path.stat().st_mode | {"owner": 0, "group": 0o020, "all": 0o002}[how])
    with pytest.raises(NotTrusted) as caught:
        permissions.check_files(settings, overlay)
    assert caught.value.where == str(path)
    permissions.check_files(settings.replace(trust="any"), overlay)


@pytest.mark.parametrize("part", ["", "overlay.json", "site"])
def test_an_overlay_that_all_users_can_write_is_refused(settings: Settings, overlay: Path, part: str) -> None:
    path = overlay / part
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(NotTrusted, match="all users can write to"):
        _trust.check_overlay(settings, overlay)
    _trust.check_overlay(settings.replace(trust="any"), overlay)


def test_a_parent_that_all_users_can_write_requires_the_sticky_bit(settings: Settings) -> None:
    parent = settings.manifest.parent
    parent.chmod(0o777)
    for check in (_trust.check, _trust.check_store):
        with pytest.raises(NotTrusted, match=f"all users can rename files in {parent}"):
            check(settings)
    parent.chmod(0o1777)
    _trust.check(settings)


def test_the_parents_of_a_links_target_are_checked_too(settings: Settings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "inner"
    elsewhere.mkdir(parents=True)
    settings.lock.rename(elsewhere / "plugins.lock")
    settings.lock.symlink_to(elsewhere / "plugins.lock")
    _trust.check(settings)
    elsewhere.parent.chmod(0o777)
    with pytest.raises(NotTrusted, match=f"rename files in {elsewhere.parent}"):
        _trust.check(settings)


def test_the_parents_of_a_linked_directory_are_checked_too(settings: Settings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "inner"
    elsewhere.parent.mkdir()
    settings.manifest.parent.rename(elsewhere)
    settings.manifest.parent.symlink_to(elsewhere)
    _trust.check(settings)
    elsewhere.parent.chmod(0o777)
    with pytest.raises(NotTrusted, match=f"rename files in {elsewhere.parent}"):
        _trust.check(settings)


def test_the_parents_of_each_link_on_the_way_are_checked(settings: Settings, tmp_path: Path) -> None:
    """Whoever may rename files there can lead the second link elsewhere."""
    for name in ("first", "between", "last"):
        (tmp_path / name).mkdir()
    settings.lock.rename(tmp_path / "last" / "plugins.lock")
    (tmp_path / "between" / "hop").symlink_to("../last/plugins.lock")
    settings.lock.symlink_to(tmp_path / "between" / "hop")
    _trust.check(settings)
    for name in ("between", "last"):
        (tmp_path / name).chmod(0o777)
        with pytest.raises(NotTrusted, match=f"rename files in .*/{name},"):
            _trust.check(settings)
        (tmp_path / name).chmod(0o755)
    settings.store.rename(tmp_path / "last" / "store")
    (tmp_path / "between" / "jump").symlink_to(tmp_path / "last")
    (tmp_path / "first" / "over").symlink_to("../between/jump")
    linked = settings.replace(store=tmp_path / "first" / "over" / "store")
    for check in (_trust.check, _trust.check_store):
        check(linked)
        for name in ("first", "between", "last"):
            (tmp_path / name).chmod(0o777)
            with pytest.raises(NotTrusted, match="all users can rename files in"):
                check(linked)
            (tmp_path / name).chmod(0o755)


def test_a_linked_directory_that_all_users_can_write_is_refused(settings: Settings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    settings.manifest.parent.rename(elsewhere)
    settings.manifest.parent.symlink_to(elsewhere)
    elsewhere.chmod(0o777)
    with pytest.raises(NotTrusted, match=f"rename files in {settings.manifest.parent},"):
        _trust.check(settings)
    elsewhere.chmod(0o1777)
    _trust.check(settings)


@pytest.mark.parametrize("target", ["plugins.lock", "./plugins.lock", "other", "plugins.lock/x"])
def test_links_that_lead_nowhere_are_not_the_trust_checks_business(settings: Settings, target: str) -> None:
    settings.lock.unlink()
    settings.lock.symlink_to(target)
    settings.lock.with_name("other").symlink_to("./plugins.lock")
    _trust.check(settings)


def test_a_link_that_is_gone_meanwhile_leads_nowhere(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.lock.rename(settings.lock.with_name("real"))
    settings.lock.symlink_to("real")

    def gone(_path: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", gone)
    _trust.check(settings)


@needs_root
def test_a_read_only_file_system_is_that_of_the_link_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a read-only file system can be replaced; so can a file next to one that is mounted over it."""

    class Status:
        def __init__(self, path: str) -> None:
            self.f_flag = os.ST_RDONLY if path == str(settings.lock) else 0

    monkeypatch.setattr(os, "statvfs", Status)
    os.chown(settings.lock, OTHER, -1)
    _trust.check(settings)
    settings.lock.rename(settings.lock.with_name("real"))
    os.chown(settings.lock.with_name("real"), os.geteuid(), -1)
    settings.lock.symlink_to("real")
    os.chown(settings.lock, OTHER, -1, follow_symlinks=False)
    with pytest.raises(NotTrusted, match="another user owns the link"):
        _trust.check(settings)


@needs_root
def test_another_users_link_and_another_users_target_are_refused(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "target"
    settings.lock.rename(target)
    settings.lock.symlink_to(target)
    os.chown(settings.lock, OTHER, -1, follow_symlinks=False)
    with pytest.raises(NotTrusted, match="another user owns the link") as caught:
        _trust.check(settings)
    assert caught.value.next_step is not None
    assert caught.value.next_step.startswith(f"chown -h {os.geteuid()} {settings.lock}, ")
    os.chown(settings.lock, os.geteuid(), -1, follow_symlinks=False)
    os.chown(target, OTHER, -1)
    with pytest.raises(NotTrusted, match=f"another user owns {settings.lock}"):
        _trust.check(settings)


def test_a_read_only_file_system_is_trusted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.lock.chmod(0o666)
    with pytest.raises(NotTrusted):
        _trust.check(settings)

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _path: ReadOnly)
    _trust.check(settings)


def test_a_file_system_that_tells_nothing_is_not_trusted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.lock.chmod(0o666)

    def fails(_path: str) -> None:
        raise OSError

    monkeypatch.setattr(os, "statvfs", fails)
    with pytest.raises(NotTrusted):
        _trust.check(settings)


def test_the_error_says_what_is_wrong_and_how_to_fix_it(settings: Settings) -> None:
    settings.lock.chmod(0o646)
    with pytest.raises(NotTrusted) as caught:
        _trust.check(settings)
    assert caught.value.to_dict().items() >= {
        ("what", f"all users can write to {settings.lock}, so nothing is run from there"),
        ("where", str(settings.lock)),
        ("expected", f"owner {os.geteuid()} or root, and not writable for others"),
        ("found", f"owner {os.geteuid()}, group {os.getegid()}, mode -rw-r--rw-"),
    }
    assert str(caught.value.next_step).startswith(f"chmod o-w {settings.lock}, ")


@needs_root
@pytest.mark.parametrize("kind", ["file", "link", "parent"])
def test_the_next_step_fits_the_fault(settings: Settings, kind: str) -> None:
    path = settings.lock
    if kind == "file":
        os.chown(path, OTHER, -1)
        what, step = f"another user owns {path}", f"chown {os.geteuid()} {path}, "
    elif kind == "link":
        path.rename(path.with_name("real"))
        path.symlink_to("real")
        os.lchown(path, OTHER, -1)
        what, step = f"another user owns the link {path}", f"chown -h {os.geteuid()} {path}, "
    else:
        path.parent.chmod(0o777)
        what, step = f"all users can rename files in {path.parent}", f"chmod o-w {path.parent}, "
    with pytest.raises(NotTrusted) as caught:
        _trust.check(settings)
    assert caught.value.what == f"{what}, so nothing is run from there"
    assert str(caught.value.next_step).startswith(step)


@pytest.mark.parametrize("name", ["plugins.yaml", "plugins.lock"])
def test_a_manifest_that_nobody_named_and_its_lock_are_checked(settings: Settings, name: str) -> None:
    permissions.check_discovered(settings)
    (settings.store).chmod(0o777)  # not part of this check
    permissions.check_discovered(settings)
    (settings.manifest.parent / name).chmod(0o666)
    with pytest.raises(NotTrusted, match=rf"all users can write to .*/{name}"):
        permissions.check_discovered(settings)


@needs_root
def test_the_owner_of_a_file_that_is_named_is_checked(settings: Settings, tmp_path: Path) -> None:
    """Whoever can write to it does not matter there: that is for what is run."""
    manifest, lock = str(settings.manifest), str(settings.lock)
    settings.manifest.chmod(0o666)
    permissions.check_owners(settings, manifest, lock, str(tmp_path / "gone" / "file"))
    for path in (settings.lock, settings.lock.parent):
        os.chown(path, OTHER, -1)
        with pytest.raises(NotTrusted, match=f"another user owns {path}") as caught:
            permissions.check_owners(settings, manifest, lock)
        assert caught.value.next_step is not None
        assert caught.value.next_step.startswith(f"chown {os.geteuid()} {path}")
        permissions.check_owners(settings.replace(trust="any"), manifest, lock)
        os.chown(path, 0, -1)
    permissions.check_owners(settings, manifest, lock)


@needs_root
def test_the_owners_of_a_link_and_of_its_target_are_checked(settings: Settings, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(settings.manifest)
    permissions.check_owners(settings, str(link))
    os.lchown(link, OTHER, -1)
    with pytest.raises(NotTrusted):
        permissions.check_owners(settings, str(link))
    os.lchown(link, 0, -1)
    os.chown(settings.manifest, OTHER, -1)
    with pytest.raises(NotTrusted):
        permissions.check_owners(settings, str(link))


@needs_root
def test_the_owner_of_the_home_directory_may_own_the_directories_above_a_named_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for path in (home, settings.manifest.parent, settings.manifest):
        os.chown(path, OTHER, -1)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(NotTrusted, match=f"another user owns {settings.manifest}"):
        permissions.check_owners(settings, str(settings.manifest))
    os.chown(settings.manifest, 0, -1)
    permissions.check_owners(settings, str(settings.manifest))


def test_links_in_an_overlay_hide_no_file_from_the_check(settings: Settings, overlay: Path) -> None:
    """The comparison refuses the links. Their modes, which are always open, don't count."""
    (overlay / "files.json").touch(mode=0o644)
    for number in range(20):
        (overlay / "site" / f"link-{number}").symlink_to("/nowhere")
    permissions.check_files(settings, overlay)
    (overlay / "site" / "module.py").touch()
    (overlay / "site" / "module.py").chmod(0o666)
    with pytest.raises(NotTrusted, match=r"all users can write to .*/site/module\.py"):
        permissions.check_files(settings, overlay)


def test_a_directory_that_is_gone_meanwhile_hides_no_other(
    settings: Settings, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (overlay / "files.json").touch(mode=0o644)
    for name in ("a", "b"):
        (overlay / "site" / name).mkdir()
        (overlay / "site" / name / "module.py").touch()
        (overlay / "site" / name / "module.py").chmod(0o666)
    scan, seen = os.scandir, []

    def scandir(path: str) -> object:
        seen.append(path)
        if len(seen) == 2:  # the first of the two directories
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(NotTrusted, match="all users can write to"):
        permissions.check_files(settings, overlay)


def test_a_file_that_is_gone_meanwhile_hides_no_other(
    settings: Settings, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine replaces the overlay while this one looks at it. The comparison finds what is missing."""
    (overlay / "files.json").touch(mode=0o644)
    for name in ("gone.py", "open.py"):
        (overlay / "site" / name).touch()
        (overlay / "site" / name).chmod(0o666)
    scan = os.scandir

    def scandir(path: str) -> list[os.DirEntry[str]]:
        entries = sorted(scan(path), key=lambda entry: entry.name)
        (overlay / "site" / "gone.py").unlink()
        return entries

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(NotTrusted, match=r"all users can write to .*/site/open\.py"):
        permissions.check_files(settings, overlay)


@pytest.mark.parametrize("name", ["store", "store/overlays"])
def test_the_directories_of_the_store_are_checked_on_their_own(settings: Settings, name: str) -> None:
    (settings.manifest.parent / name).chmod(0o777)
    with pytest.raises(NotTrusted, match=f"all users can write to {settings.manifest.parent / name}"):
        _trust.check_store(settings)
