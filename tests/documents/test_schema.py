"""The JSON Schema of plugins.yaml says what the reader says: each is asked about the same manifests."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import regress
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, ValidationError, validators
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from vllm_plugins.core.errors import ManifestError
from vllm_plugins.documents import _yaml, manifest
from vllm_plugins.documents.editing import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yaml.nodes import Node

ROOT = Path(__file__).parents[2]
PATH = Path("plugins.yaml")
SCHEMA = json.loads(schema.text())
MARK = yaml.Mark("plugins.yaml", 0, 0, 0, None, 0)

FULL: dict[str, Any] = {
    "plugins": [
        {
            "name": "a",
            "source": "pypi",
            "package": "one",
            "version": ">=0.1,<2",
            "index": "team",
            "extras": ["fast"],
            "enabled": True,
            "loads": ["one.kv:Connector"],
            "build": {"requires": ["ninja"], "with-base": ["torch"]},
        },
        {
            "name": "b",
            "source": "git",
            "url": "https://${TOKEN}@example.org/b.git",
            "ref": "v2",
            "subdirectory": "below/it",
            "package": "two",
            "extras": ["more"],
            "enabled": True,
            "loads": ["two"],
        },
        {
            "name": "c",
            "source": "local",
            "path": "~/c",
            "editable": True,
            "package": "three",
            "extras": ["x"],
            "enabled": False,
            "loads": ["three"],
        },
        {
            "name": "d",
            "source": "file",
            "path": "d.jinja",
            "sha256": "0" * 64,
            "filename": "chat.jinja",
            "enabled": True,
            "loads": ["four"],
        },
        {
            "name": "e",
            "source": "file",
            "url": "https://example.org/e.py",
            "sha256": "1" * 64,
            "filename": "parser_e.py",
            "enabled": True,
            "loads": ["five"],
        },
    ],
    "indexes": {"team": {"url": "https://packages.example.org/simple"}},
    "overrides": [{"package": "transformers", "version": ">=5.20", "reason": "our model"}],
    "targets": [
        {"name": "dev", "base": "here"},
        {"name": "arm", "base": "vllm==0.32.0", "python": "3.12", "platform": "linux-aarch64"},
    ],
    "policy": {
        "yanked": "warn",
        "required": ["vulnerabilities"],
        "min-age-days": 14,
        "min-age-exempt": ["ours"],
        "allowed-licenses": ["MIT"],
        "denied-licenses": ["AGPL-3.0-only"],
        "accepted": [{"id": "CVE-2026-1234", "reason": "not reached", "until": "2027-01-31"}],
        "variables": {"GIT_TOKEN": ["https://git.example.org"]},
    },
}

# A small manifest is read and validated in less time.
PARTS = [{"plugins": [plugin]} for plugin in FULL["plugins"]] + [{**FULL, "plugins": []}]


def ecma(_: object, pattern: str, instance: object, __: object) -> Iterator[ValidationError]:
    """The patterns as an editor reads them, and as the standard says: in JavaScript's dialect."""
    if isinstance(instance, str) and regress.Regex(pattern, "u").find(instance) is None:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


VALIDATOR = validators.extend(Draft7Validator, {"pattern": ecma})(SCHEMA)


def as_node(value: Any) -> Node:
    if isinstance(value, dict):
        return MappingNode("tag:yaml.org,2002:map", [(as_node(k), as_node(v)) for k, v in value.items()], MARK, MARK)
    if isinstance(value, list):
        return SequenceNode("tag:yaml.org,2002:seq", [as_node(item) for item in value], MARK, MARK)
    kinds = {str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}
    written = value if isinstance(value, str) else json.dumps(value)
    return ScalarNode(f"tag:yaml.org,2002:{kinds[type(value)]}", written, MARK, MARK)


def as_data(node: Node) -> Any:
    """A node as an editor hands it to the schema."""
    if isinstance(node, MappingNode):
        return {key.value: as_data(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [as_data(item) for item in node.value]
    return yaml.SafeLoader("").construct_object(node) if _yaml.kind(node) != "str" else node.value


def problems(data: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """What the reader says of a manifest with this content."""
    with monkeypatch.context() as patched:
        patched.setattr(_yaml, "load", lambda _: as_node(data))
        try:
            manifest.parse(b"", PATH)
        except ManifestError as error:
            return error.details
    return ()


def expressible(said: tuple[str, ...]) -> list[str]:
    """The problems without those that compare two places of a file, which a schema can't."""
    return [text for text in said if "is not in `indexes`" not in text]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A document with another value at a path."""
    if not path:
        return value
    found = copy.deepcopy(document)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


def removed(document: Any, path: tuple[Any, ...]) -> Any:
    found = copy.deepcopy(document)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return found


def mutants(document: Any) -> Iterator[Any]:
    """Documents with one difference: another kind of value, a text that no key may have, a key too many or too few."""
    others: tuple[Any, ...] = (
        None,
        True,
        3,
        100_000,
        -1,
        3.5,
        "",
        "-x",
        " x",
        "x\n",
        "a\x1bb",
        "a\u00a0",
        "a" * 4097,
        "no/way:it",
        [],
        {},
        [3],
        {"x": 1},
    )
    for path in places(document):
        for other in others:
            yield replaced(document, path, other)
        value = document
        for key in path:
            value = value[key]
        if isinstance(value, dict):
            for key in ("nonsense", "url", "version", "path", "editable", "package", "until", "plugins", "<<"):
                if key not in value:
                    yield replaced(document, (*path, key), "1")
        if path:
            yield removed(document, path)


def test_the_schema_is_valid() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_the_reader_and_the_schema_agree_on_every_change_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(expressible(problems(part, monkeypatch)) for part in PARTS)
    found = [mutant for part in PARTS for mutant in mutants(part)]
    assert len(found) > 1000
    wrong = [
        (document, said) for document in found if VALIDATOR.is_valid(document) is bool(expressible(said := problems(document, monkeypatch)))
    ]  # fmt: skip
    assert wrong == []


def test_every_manifest_of_the_documentation_validates() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("plugins*.yaml")]
    for page in pages:
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        texts += [block for block in blocks if block.startswith("plugins:")]
    assert len(texts) > 5
    for text in texts:
        manifest.parse(text.encode(), PATH)
        root = _yaml.load(text.encode())
        assert root is not None
        VALIDATOR.validate(as_data(root))


word = st.text("aZ0._- ,<>=!~*@:/#${}[]^?\\'\"é|", min_size=1, max_size=12)
urls = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(
            ["https://", "ssh://", "file:///", "file://", "git+https://", "${HOST}", "git@", "ftp://", ""]
        ),
        st.sampled_from(["", "host", "${USER}@host", "[::1]", "-x", ".x", "~x", "::"]),
        st.sampled_from(["/", ":", "", "::"]),
        word,
    ),
)
versions = st.lists(
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["===", "==", "~=", "!=", "<=", ">=", "<", ">", ""]),
            st.sampled_from(["", " ", "  "]),
            st.sampled_from(["1", "1.0", "1.*", "2!1.0+local", "1.0rc1.post2.dev3", "v1", "x", "", "1 2", "-1"]),
        ),
    ),
    min_size=1,
    max_size=3,
).map(",".join)
TEXTS = {(0, ("plugins", 0, "version")): versions, (1, ("plugins", 0, "url")): urls, (4, ("plugins", 0, "url")): urls}


@settings(max_examples=400, deadline=None)
@example((0, ("plugins", 0, "version"), "==1.0,"))
@example((0, ("plugins", 0, "version"), "==="))
@example((0, ("plugins", 0, "loads", 0), "ünï.cøde:Klasse"))
@example((1, ("plugins", 0, "url"), "git@host:~/x.git"))
@given(
    st.sampled_from([(number, path) for number, part in enumerate(PARTS) for path in places(part)]).flatmap(
        lambda place: st.tuples(*map(st.just, place), TEXTS.get(place, word) | word | st.text(min_size=1, max_size=6))
    )
)
def test_every_text_that_the_reader_accepts_validates(changed: tuple[int, tuple[Any, ...], str]) -> None:
    number, path, text = changed
    document = replaced(PARTS[number], path, text)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not problems(document, monkeypatch):
            VALIDATOR.validate(document)


def keys_of_reader(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The keys that the reader knows in each mapping, by the path of the mapping.

    The reader is asked: every key is given a mapping, and a list of one, until no new mapping is found.
    """
    found: dict[str, set[str]] = {}
    plain = _yaml.Fields.unknown
    kinds: list[str] = []

    def unknown(self: _yaml.Fields, allowed: Any, elsewhere: Any = None) -> None:
        source = self.fields["source"][1].value if "source" in self.fields else None
        where = re.sub(r"\[\d+\]", "[]", self.where)
        found.setdefault(f"{where}({source})" if source in kinds else where, set()).update(allowed)
        plain(self, allowed, elsewhere)

    monkeypatch.setattr(_yaml.Fields, "unknown", unknown)
    (said,) = (
        text for text in problems({"plugins": [{"name": "a", "source": "x"}]}, monkeypatch) if "found 'x'" in text
    )
    kinds += re.split(r", | or ", said.partition("expected ")[2].partition(", found")[0])
    assert set(kinds) >= {"pypi", "git", "local", "file"}
    found.clear()
    documents: list[Any] = [{}, *({"plugins": [{"source": kind}]} for kind in kinds)]
    known: set[str] = set()
    while documents:
        for document in documents:
            problems(document, monkeypatch)
        new = found.keys() - known
        known |= new
        documents = [
            with_key(path, key, value) for path in new for key in found[path] for value in ({"x": 1}, [{"x": 1}])
        ]
    found.pop("plugins[]", None)  # a plugin whose source is not known
    return found


def with_key(path: str, key: str, value: Any) -> Any:
    """A document with this key in the mapping with that path."""
    for step in reversed([*re.findall(r"[\w-]+(?:\[\])?(?:\(\w+\))?", path), key]):
        name, _, kind = step.removesuffix(")").partition("(")
        if kind:
            value = {"source": kind, **value}
        value = {name.removesuffix("[]"): [value] if name.endswith("[]") else value}
    return value


def keys_of_schema(part: Any, where: str = "") -> Iterator[tuple[str, set[str]]]:
    """The keys of each mapping in the schema, by the same paths."""
    for choice in [*part.get("oneOf", ()), *part.get("anyOf", ())]:
        yield from keys_of_schema(choice, where)
    if part.get("type") == "array":
        yield from keys_of_schema(part["items"], f"{where}[]")
    if "properties" in part:
        kind = part["properties"].get("source", {}).get("const")
        inner = where  # what lies below a plugin is the same for every source
        where = f"{where}({kind})" if kind else where
        yield where, set(part["properties"])
        where = inner
        for key, value in part["properties"].items():
            yield from keys_of_schema(value, f"{where}.{key}" if where else key)


def test_every_key_of_the_reader_is_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    # If this fails for a new key: describe it in vllm_plugins/documents/editing/schema.py, and put it into FULL.
    found = keys_of_reader(monkeypatch)
    assert {"", "policy", "overrides[]", "policy.accepted[]", "plugins[](git)"} <= set(found)
    assert dict(keys_of_schema(SCHEMA)) == found


def test_the_full_manifest_has_every_key_that_the_schema_describes() -> None:
    described = {key for where, keys in keys_of_schema(SCHEMA) if where != "policy" for key in keys}
    given = {key for path in places(FULL) for key in path if isinstance(key, str)}
    assert described <= given
    assert all(part.get("description") for part in descriptions(SCHEMA))


def descriptions(part: Any) -> Iterator[Any]:
    for choice in [*part.get("oneOf", ()), part.get("items")]:
        if choice is not None:
            yield from descriptions(choice)
    for value in part.get("properties", {}).values():
        yield value
        yield from descriptions(value)
