"""A build backend (PEP 517, PEP 660) that lies in the project itself, so that a build needs nothing from an index.

The kit copies this file into projects as ``backend.py``; it reads ``[project]`` and packs what lies under ``src``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

_WHEEL = "Wheel-Version: 1.0\nGenerator: inline (1)\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_TIME = (2020, 1, 1, 0, 0, 0)


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    source = Path("src")
    files = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    return write_wheel(Path(wheel_directory), _table(Path()), files).name


def build_editable(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    table = _table(Path())
    path = f"{Path('src').resolve()}\n".encode()
    return write_wheel(Path(wheel_directory), table, {f"__editable__{_stem(table)}.pth": path}).name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    return write_sdist(Path(sdist_directory), Path()).name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    table = _table(Path())
    info = Path(metadata_directory, f"{_stem(table)}.dist-info")
    info.mkdir()
    for name, text in _information(table).items():
        (info / name).write_text(text, encoding="utf-8")
    return info.name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def write_wheel(into: Path, table: dict[str, Any], files: dict[str, bytes]) -> Path:
    """Pack files with the metadata of a ``[project]`` table; the same input gives the same bytes."""
    info = f"{_stem(table)}.dist-info"
    members = {**files, **{f"{info}/{name}": text.encode() for name, text in _information(table).items()}}
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,\n"]).encode()
    target = into / f"{_stem(table)}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, _TIME)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return target


def write_sdist(into: Path, project: Path) -> Path:
    """Pack a project directory."""
    table = _table(project)
    top = _stem(table)
    files = {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and not {"__pycache__", ".git"} & set(path.parts)
    }
    files["PKG-INFO"] = _information(table)["METADATA"].encode()
    target = into / f"{top}.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target


def _table(project: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def _stem(table: dict[str, Any]) -> str:
    return f"{table['name'].lower().replace('-', '_').replace('.', '_')}-{table['version']}"


def _information(table: dict[str, Any]) -> dict[str, str]:
    """The files of ``.dist-info``, RECORD apart."""
    lines = ["Metadata-Version: 2.4", f"Name: {table['name']}", f"Version: {table['version']}"]
    if "requires-python" in table:
        lines.append(f"Requires-Python: {table['requires-python']}")
    if "license" in table:
        lines.append(f"License-Expression: {table['license']}")
    lines += [f"Requires-Dist: {requirement}" for requirement in table.get("dependencies", [])]
    for extra, requirements in table.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {requirement}; extra == "{extra}"' for requirement in requirements]
    found = {"METADATA": "\n".join(lines) + "\n", "WHEEL": _WHEEL}
    groups = table.get("entry-points", {})
    if groups:
        parts = [
            "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
            for group, points in groups.items()
        ]
        found["entry_points.txt"] = "\n\n".join(parts) + "\n"
    return found


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
