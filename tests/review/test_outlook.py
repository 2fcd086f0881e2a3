from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from vllm_plugins.packages.wheel_files import WheelFiles
from vllm_plugins.review import outlook

if TYPE_CHECKING:
    from vllm_plugins.review.outlook import Outlook

POINTS = [("vllm.general_plugins", "plug:register")]
VLLM = {
    "vllm/__init__.py": """
import typing
MODULE_ATTRS = {"LLM": ".entrypoints.llm:LLM"}
if typing.TYPE_CHECKING:
    from vllm.entrypoints.llm import LLM, Only
else:
    def __getattr__(name):
        if name in MODULE_ATTRS:
            return getattr(import_module(MODULE_ATTRS[name]), name)
        raise AttributeError(name)
""",
    "vllm/envs.py": "environment_variables = {'VLLM_A': 1}\ndef __getattr__(name):\n    raise AttributeError\n",
    "vllm/open.py": "def __getattr__(name):\n    return getattr(other, name)\n",
    "vllm/filled.py": "globals().update(made())\n",
    "vllm/a/__init__.py": "from vllm.a.b import *\nfrom .c import Again as Renamed\n",
    "vllm/a/b.py": "__all__ = ['Public']\nclass Public: ...\nclass Hidden: ...\n",
    "vllm/a/c.py": "from vllm.a.b import Public as Again\nAgain.x: int = 1\nunset: int\nfirst, *rest = 1, 2\n",
    "vllm/cond.py": """
try:
    import triton
    HAS = True
except ImportError:
    HAS = False
if cuda():
    Fast = 1
if sys.platform == "x":
    Both = 1
else:
    Both = 2
try:
    Sure = 1
except Exception:
    raise
for Each in (): ...
with it() as Inside:
    Within = 1
gone = 1
del gone
def f():
    global Later
""",
    "vllm/old/moved.py": "async def walk(): ...\n",
    "vllm/new/place.py": "Elsewhere: int = 1\nclass Thing: ...\n",
    "vllm/bad.py": "def (:\n",
}
NAMES = [*VLLM, "vllm/_C.abi3.so", "vllm/old/data.json"]
RELEASE = outlook.release_of(
    WheelFiles(names=frozenset(NAMES), sources={name: text.encode() for name, text in VLLM.items()})
)


@pytest.mark.parametrize(
    ("module", "chain", "state"),
    [
        ("vllm", ("LLM",), "present"),
        ("vllm", ("Only",), "missing"),
        ("vllm", ("envs", "VLLM_A"), "present"),
        ("vllm", ("envs", "VLLM_B"), "missing"),
        ("vllm", ("__file__",), "present"),
        ("vllm.open", ("x",), "unknown"),
        ("vllm.filled", ("x",), "unknown"),
        ("vllm.a", ("Public",), "present"),
        ("vllm.a", ("Hidden",), "missing"),
        ("vllm.a", ("Renamed",), "present"),
        ("vllm.a", ("Again",), "missing"),
        ("vllm.a", ("b", "Hidden", "anything"), "present"),
        ("vllm.a", ("b", "nothing"), "missing"),
        ("vllm.a.c", ("unset",), "missing"),
        ("vllm.a.c", ("rest",), "present"),
        ("vllm.cond", ("HAS",), "present"),
        ("vllm.cond", ("Fast",), "unknown"),
        ("vllm.cond", ("Both",), "present"),
        ("vllm.cond", ("Sure",), "present"),
        ("vllm.cond", ("Each",), "unknown"),
        ("vllm.cond", ("Inside",), "present"),
        ("vllm.cond", ("Within",), "present"),
        ("vllm.cond", ("gone",), "missing"),
        ("vllm.cond", ("Later",), "unknown"),
        ("vllm.old", ("moved",), "present"),
        ("vllm.old", ("data",), "missing"),
        ("vllm._C", ("op",), "unknown"),
        ("vllm._rocm_C", (), "unknown"),
        ("vllm._version", ("version",), "unknown"),
        ("vllm.bad", ("x",), "unknown"),
        ("vllm.gone.deep", ("x",), "missing"),
    ],
)  # fmt: skip
def test_a_release_has_what_its_files_define(module: str, chain: tuple[str, ...], state: str) -> None:
    assert RELEASE.look_up(module, chain).state == state


def examined(*sources: str, **files: str) -> Outlook:
    """What is found for a plugin whose module ``plug`` is made of these sources."""
    texts = {"plug/__init__.py": "\n".join(sources) + "\ndef register(): ...\n", **files}
    if any("def register" in source for source in sources):
        texts["plug/__init__.py"] = "\n".join(sources)
    contents = {name: text.encode() for name, text in texts.items()}
    return outlook.examine(WheelFiles(names=frozenset(contents), sources=contents), POINTS, RELEASE)


def gone(found: Outlook) -> list[tuple[str, str]]:
    return [(item.name, item.when) for item in found.findings if item.kind != "unknown"]


@pytest.mark.parametrize(
    ("source", "name", "when"),
    [
        ("import vllm.gone", "vllm.gone", "load"),
        ("import vllm.gone.deep as x", "vllm.gone.deep", "load"),
        ("from vllm.a import Hidden", "vllm.a.Hidden", "load"),
        ("from vllm.gone import *", "vllm.gone", "load"),
        ("import vllm.envs\nvllm.envs.VLLM_B", "vllm.envs.VLLM_B", "load"),
        ("from vllm import envs\nenvs.VLLM_B", "vllm.envs.VLLM_B", "load"),
        ("import vllm.envs as e\nclass A:\n    x = e.VLLM_B", "vllm.envs.VLLM_B", "load"),
        ("import vllm.a.b as b\nclass A(b.Gone): ...", "vllm.a.b.Gone", "load"),
        ("import vllm.a.b as b\n@b.gone\ndef f(): ...", "vllm.a.b.gone", "load"),
        ("import vllm.a.b as b\ndef f(x=b.gone): ...", "vllm.a.b.gone", "load"),
        ("import vllm.a.b as b\ndef f(x: b.Gone): ...", "vllm.a.b.Gone", "load"),
        ("def f():\n    from vllm.a import Hidden", "vllm.a.Hidden", "call"),
        ("import vllm.a.b as b\ndef f():\n    return b.gone", "vllm.a.b.gone", "call"),
        ("import vllm.a.b as b\nf = lambda: b.gone", "vllm.a.b.gone", "call"),
        ("import importlib\nimportlib.import_module('vllm.gone')", "vllm.gone", "load"),
        ("try:\n    from vllm.a import Hidden\nexcept ImportError:\n    Hidden = None", "vllm.a.Hidden", "guarded"),
        ("try:\n    from vllm.a import Hidden\nexcept Exception:\n    pass", "vllm.a.Hidden", "guarded"),
        ("try:\n    from vllm.a import Hidden\nexcept ImportError:\n    raise", "vllm.a.Hidden", "load"),
        ("try:\n    from vllm.a import Hidden\nexcept KeyError:\n    pass", "vllm.a.Hidden", "load"),
        ("import contextlib\nwith contextlib.suppress(ImportError):\n    import vllm.gone", "vllm.gone", "guarded"),
        ("if VERSION >= 1:\n    import vllm.gone", "vllm.gone", "guarded"),
        ("if there():\n    import vllm.gone", "vllm.gone", "call"),
        ("if NAME not in registry():\n    import vllm.gone", "vllm.gone", "load"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vllm.gone", "vllm.gone", "typing"),
        ("def register():\n    from vllm.a import Hidden", "vllm.a.Hidden", "load"),
        ("def register():\n    helper()\ndef helper():\n    from vllm.a import Hidden", "vllm.a.Hidden", "load"),
    ],
)  # fmt: skip
def test_a_missing_name_is_found_with_when_it_is_needed(source: str, name: str, when: str) -> None:
    assert gone(examined(source)) == [(name, when)]


@pytest.mark.parametrize(
    "source",
    [
        "from vllm import LLM, envs\nfrom vllm.a import Public, b\nenvs.VLLM_A",
        "from __future__ import annotations\nimport vllm.a.b as b\ndef f(x: b.Gone) -> b.Gone: ...\nx: b.Gone",
        "import vllm.a.b as b\nb.patched = 1",
        "import vllm.a.b as b\ndef f(b):\n    return b.anything",
        "from vllm.a.b import Public\nPublic.anything.more",
        "vllm = 1\nvllm.anything",
        "from .vllm import thing",
    ],
)
def test_what_is_there_or_not_of_vllm_is_no_finding(source: str) -> None:
    assert gone(examined(source)) == []


def test_a_handler_counts_only_if_its_body_fails() -> None:
    both = "try:\n    from vllm.{} import Hidden\nexcept ImportError:\n    from vllm.{} import Thing"
    assert gone(examined(both.format("a.b", "gone"))) == []
    assert gone(examined(both.format("gone", "new.place"))) == [("vllm.gone.Hidden", "guarded")]
    assert gone(examined(both.format("gone", "a"))) == [("vllm.a.Thing", "load"), ("vllm.gone.Hidden", "guarded")]


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (("a.b", "gone", "away"), []),
        (("gone", "a.b", "away"), [("vllm.gone.Hidden", "guarded")]),
        (("gone", "new", "a.b"), [("vllm.gone.Hidden", "guarded"), ("vllm.new.Hidden", "guarded")]),
    ],
)
def test_a_chain_of_handlers_ends_where_the_name_is(modules: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    chain = "try:\n  {}\nexcept ImportError:\n  try:\n    {}\n  except ImportError:\n    {}"
    source = chain.format(*(f"from vllm.{module} import Hidden" for module in modules))
    assert gone(examined(source)) == found
    later = "\n".join(f" {line}" for line in source.splitlines())
    assert gone(examined(f"def f():\n{later}")) == found


def test_a_use_of_what_could_not_be_imported_is_no_second_finding() -> None:
    handled = "try:\n    from vllm.a import Hidden\nexcept ImportError:\n    pass\n"
    assert gone(examined(f"{handled}def f():\n    return Hidden.part")) == [("vllm.a.Hidden", "guarded")]
    found = gone(
        examined("try:\n    from vllm.a import b\nexcept ImportError:\n    pass\ndef f():\n    return b.gone")
    )
    assert found == [("vllm.a.b.gone", "call")]


def test_what_a_module_needs_later_counts_if_its_import_does_not_fail() -> None:
    """The plugin handles the failure of the import, and not what its functions do."""
    later = "def f():\n    import vllm.gone\n"
    source = "try:\n    from plug import inner\nexcept ImportError: ..."
    assert gone(examined(source, **{"plug/inner.py": later})) == [("vllm.gone", "call")]
    for files in (
        {"plug/inner.py": f"import vllm.away\n{later}"},
        {"plug/inner.py": f"from plug import deep\n{later}", "plug/deep.py": "import vllm.away"},
    ):
        assert gone(examined(source, **files)) == [("vllm.away", "guarded"), ("vllm.gone", "guarded")]


def test_only_modules_that_are_reached_are_needed_when_vllm_starts() -> None:
    bad = "import vllm.gone\n"
    for source, when in (
        ("from plug import inner", "load"),
        ("from . import inner", "load"),
        ("import plug.inner", "load"),
        ("def later():\n    from plug import inner", "call"),
        ("def register():\n    return 'plug.inner.Platform'", "load"),
        ("try:\n    from plug import inner\nexcept ImportError: ...", "guarded"),
        ("try:\n    from plug import inner\nexcept Exception:\n    log.exception('no inner')", "call"),
        ("def register():\n    try:\n        import plug.inner\n    except Exception:\n        log.error(1)", "call"),
        ("try:\n    from plug import inner\nexcept ImportError:\n    log.info(1)", "guarded"),
        ("try:\n    from . import inner\nexcept ImportError:\n    log.error(1)\n    import json", "guarded"),
        (
            "try:\n    with suppress(ImportError):\n        import plug.inner\nexcept Exception:\n    log.error(1)",
            "guarded",
        ),
        ("", "call"),
    ):
        assert gone(examined(source, **{"plug/inner.py": bad})) == [("vllm.gone", when)], source


def test_functions_that_are_called_while_vllm_starts_are_followed_into_other_modules() -> None:
    inner = "def apply():\n    from vllm.a import Hidden\ndef other():\n    import vllm.gone\n"
    for source in (
        "from plug.inner import apply\ndef register():\n    apply()",
        "def register():\n    from .inner import apply as it\n    it()",
        "from plug import inner\ndef register():\n    inner.apply()",
        "import plug.inner as i\ndef register():\n    helper()\ndef helper():\n    i.apply()",
        "from plug.inner import apply\napply()",
    ):
        found = gone(examined(source, **{"plug/inner.py": inner}))
        assert found == [("vllm.a.Hidden", "load"), ("vllm.gone", "call")], source
    assert gone(examined("from plug.inner import apply\ndef later():\n    apply()", **{"plug/inner.py": inner})) == [
        ("vllm.a.Hidden", "call"),
        ("vllm.gone", "call"),
    ]


def test_a_verdict_follows_from_what_is_missing_when() -> None:
    assert examined("import vllm.gone").verdict == "breaks"
    assert examined("def f():\n    import vllm.gone").verdict == "may break"
    assert examined("import vllm._C\nvllm._C.op").verdict == "fits"


def test_a_name_that_is_elsewhere_now_has_moved() -> None:
    found = examined("from vllm.a import Elsewhere\nfrom vllm.gone import walk\nimport vllm.away")
    assert {item.name: item.moved_to for item in found.findings} == {
        "vllm.a.Elsewhere": ("vllm.new.place",),
        "vllm.gone.walk": ("vllm.old.moved",),
        "vllm.away": (),
    }
    assert {item.name: item.where for item in found.findings}["vllm.gone.walk"] == ("plug/__init__.py:2",)


def test_a_file_that_can_not_be_parsed_is_reported() -> None:
    found = examined("", **{"plug/odd.py": "print 'x'\n"})
    assert found.unread == ("plug/odd.py",)


def test_hostile_files_cost_little_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parsed file takes a thousand times its size, and each function that is called makes its file read again."""
    read: list[int] = []
    parse = ast.parse

    def noted(source: bytes) -> ast.Module:
        read.append(len(source))
        return parse(source)

    monkeypatch.setattr(ast, "parse", noted)
    found = examined("import plug.large", **{"plug/large.py": "x = 1\n" * 300_000})
    assert found.unread == ("plug/large.py",)
    chain = "\n".join(["def register(): f0()", *(f"def f{number}(): f{number + 1}()" for number in range(200))])
    read.clear()
    examined(f"{chain}\n")
    assert len(read) < 20
    monkeypatch.setattr(outlook, "_MOST", 100)
    found = examined("import vllm.gone", **{f"plug/m{number}.py": "import vllm.gone\n" for number in range(20)})
    assert len(found.unread) == 17


def test_modules_that_take_all_names_of_two_others_are_read_once_each() -> None:
    sources = {"vllm/__init__.py": "from .a0 import *\n", "vllm/a24.py": "", "vllm/b24.py": ""}
    for number in range(24):
        both = f"from .a{number + 1} import *\nfrom .b{number + 1} import *\n"
        sources |= {f"vllm/{letter}{number}.py": both for letter in "ab"}
    files = WheelFiles(names=frozenset(sources), sources={name: text.encode() for name, text in sources.items()})
    assert outlook.release_of(files).look_up("vllm", ["gone"]).state == "missing"
