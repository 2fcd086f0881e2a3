"""Make a build of torch for CUDA work on a CPU, without CUDA: for releases of torch whose CPU build is not on the index.

Its requirements on CUDA packages are dropped, and the CUDA libraries that its own libraries are linked to are replaced
by small ones. Each of their functions returns 100, which is cudaErrorNoDevice. Needs gcc, nm and readelf.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

_CUDA_PACKAGE = re.compile(r"Requires-Dist: (nvidia|cuda|triton)\b")
_CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
_CUDA_SYMBOL = re.compile(r"(__?)?(cuda|cu[A-Z]|cublas|cudnn|cufft|cusparse|cusolver|curand|cupti|nccl|nv)")


def needs_cuda(site: Path) -> bool:
    """Whether the torch in a ``site-packages`` was built for CUDA."""
    return any(_CUDA_PACKAGE.match(line) for line in _metadata(site).read_text(encoding="utf-8").splitlines())


def drop_requirements(site: Path) -> None:
    """Take the CUDA packages out of torch's requirements, so that no installer adds them."""
    path = _metadata(site)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.unlink()  # it may be linked to the installer's cache
    path.write_text("".join(line for line in lines if not _CUDA_PACKAGE.match(line)), encoding="utf-8")


def write_libraries(site: Path) -> list[str]:
    """Write the CUDA libraries that torch is linked to and lacks; returns their names."""
    directory = site / "torch" / "lib"
    files = [path for path in directory.glob("*.so*") if path.is_file()]
    needed: set[str] = set()
    defined: set[str] = set()
    undefined: dict[str, str] = {}  # symbol: its version, if it has one
    for path in files:
        needed.update(re.findall(r"NEEDED.*\[(.+)\]", _output("readelf", "-dW", str(path))))
        defined.update(symbol for symbol, _ in _symbols("--defined-only", path))
        undefined.update(dict(_symbols("--undefined-only", path)))
    missing = sorted(name for name in needed - {path.name for path in files} if _CUDA_LIBRARY.match(name))
    symbols = {
        name: version for name, version in undefined.items() if name not in defined and _CUDA_SYMBOL.match(name)
    }
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text("".join(f"long {name}(void) {{ return 100; }}\n" for name in sorted(symbols)))
        versions = sorted(set(filter(None, symbols.values())))
        script.write_text(
            "".join(
                f"{version} {{ global: {' '.join(f'{name};' for name in sorted(symbols) if symbols[name] == version)} }};\n"
                for version in versions
            )
        )
        for name in missing:
            argv = ["gcc", "-shared", "-fPIC", "-w", "-o", str(directory / name), str(source), f"-Wl,-soname,{name}"]
            subprocess.run([*argv, *([f"-Wl,--version-script={script}"] if versions else [])], check=True)
    return missing


def _metadata(site: Path) -> Path:
    (path,) = site.glob("torch-*.dist-info/METADATA")
    return path


def _symbols(kind: str, path: Path) -> list[tuple[str, str]]:
    lines = _output("nm", "-D", kind, str(path)).splitlines()
    return [
        (name, version.lstrip("@"))
        for name, _, version in (line.split()[-1].partition("@") for line in lines if line)
    ]


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
