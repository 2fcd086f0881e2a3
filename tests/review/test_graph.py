from __future__ import annotations

import pytest

from tests.kit import values
from vllm_plugins.core.errors import UsageError
from vllm_plugins.documents.lock import BaseUse, Lock, Package
from vllm_plugins.review.graph import Graph

NAME = values.NAME
TORCH = BaseUse(name=NAME("torch"), version="2.13.0", required_by=(("helper", ">=2"), ("tiny", "")))


def package(name: str, *needs: str, marker: str | None = None) -> Package:
    return values.package(name, dependencies=tuple(map(NAME, needs)), marker=marker)


def lock(*packages: Package, plugins: tuple[str, ...] = ("tiny",), uses: tuple[BaseUse, ...] = ()) -> Lock:
    made = values.lock(*packages, uses=uses)
    (plugin,) = made.plugins
    return made.replace(
        plugins=tuple(plugin.replace(name=f"{name}-plugin", package=NAME(name), requested=name) for name in plugins)
    )


def paths(graph: Graph, name: str) -> list[str]:
    return [" ".join((plugin.name, *(node.name for node in path))) for plugin, path in graph.why(name).paths]


def test_the_tree_has_plugins_packages_and_what_the_base_provides() -> None:
    made = lock(package("tiny", "helper"), package("helper", marker='sys_platform == "linux"'), uses=(TORCH,))
    assert Graph(made).tree().splitlines() == [
        "tiny-plugin (pypi: tiny)",
        "└── tiny 1.0",
        '    ├── helper 1.0 ; sys_platform == "linux"',
        "    │   └── torch 2.13.0 (base; requires >=2)",
        "    └── torch 2.13.0 (base)",
    ]


def test_a_package_is_expanded_once_and_a_circle_ends() -> None:
    made = lock(
        package("tiny", "helper"), package("other", "helper"), package("helper", "tiny"), plugins=("tiny", "other")
    )
    assert Graph(made).tree(is_ascii=True).splitlines() == [
        "other-plugin (pypi: other)",
        "`-- other 1.0",
        "    `-- helper 1.0",
        "        `-- tiny 1.0",
        "            `-- helper 1.0 (see above)",
        "tiny-plugin (pypi: tiny)",
        "`-- tiny 1.0 (see above)",
    ]


def test_a_package_at_the_limit_of_the_depth_is_expanded_where_it_is_nearer() -> None:
    made = lock(
        package("a", "b"), package("b", "c"), package("c", "d"), package("d"), package("z", "c"), plugins=("a", "z")
    )
    graph = Graph(made)
    assert graph.tree(depth=3).splitlines()[-3:] == ["└── z 1.0", "    └── c 1.0", "        └── d 1.0"]
    assert graph.tree(depth=0).splitlines() == ["a-plugin (pypi: a)", "z-plugin (pypi: z)"]
    assert [sorted(graph.reached(depth)) for depth in (0, 1, 2, None)] == [
        [], ["a", "z"], ["a", "b", "c", "z"], ["a", "b", "c", "d", "z"],
    ]  # fmt: skip


def test_a_chain_that_is_longer_than_the_stack_of_python_is_shown() -> None:
    length = 3000
    chain = [package(f"p{i}", *([f"p{i + 1}"] if i + 1 < length else [])) for i in range(length)]
    graph = Graph(lock(*chain, plugins=("p0",)))
    assert len(graph.tree().splitlines()) == length + 1
    assert len(graph.why(f"p{length - 1}").paths[0][1]) == length


def test_every_path_to_a_package_is_found_the_shortest_first() -> None:
    made = lock(
        package("tiny", "a", "helper"),
        package("a", "b"),
        package("b", "a", "helper"),
        package("helper"),
        uses=(TORCH,),
    )
    graph = Graph(made)
    assert paths(graph, "helper") == ["tiny-plugin tiny helper", "tiny-plugin tiny a b helper"]
    assert paths(graph, "Torch")[0] == "tiny-plugin tiny torch"
    assert not graph.why("torch").has_more


def test_of_very_many_paths_some_are_shown() -> None:
    layers = [[f"l{i}a", f"l{i}b"] for i in range(30)]
    packages = [package("tiny", *layers[0])]
    for here, below in zip(layers, [*layers[1:], ["helper"]], strict=True):
        packages += [package(name, *below) for name in here]
    answer = Graph(lock(*packages, package("helper"))).why("helper")
    assert len(answer.paths) == 20
    assert answer.has_more


def test_a_plugin_is_found_by_its_name_in_any_spelling() -> None:
    assert Graph(lock(package("tiny"))).why("Tiny_Plugin").name == "tiny"


def test_a_package_that_only_the_environment_has_is_distinguished_from_an_unknown_one() -> None:
    graph = Graph(lock(package("tiny")))
    answer = graph.why("torch", values.base())
    assert (answer.versions, answer.is_base, answer.paths) == (("2.13.0+cpu",), True, ())
    with pytest.raises(UsageError) as caught:
        graph.why("toch", values.base())
    assert caught.value.next_step == "vllm-plugins why torch"
    with pytest.raises(UsageError) as caught:
        graph.why("zzzzzz", values.base())
    assert caught.value.next_step == "vllm-plugins tree"


def test_a_lock_for_several_kinds_of_machines_says_which_base_is_meant() -> None:
    made = lock(package("tiny"), uses=(TORCH,))
    (target,) = made.targets
    other = target.replace(python="3.12", base=(TORCH.replace(version="2.14.0"),))
    lines = Graph(made.replace(targets=(target, other))).tree().splitlines()
    assert lines[-1] == f"    └── torch 2.14.0 (base; Python 3.12 on {target.platform})"


def test_a_plugin_that_the_base_provides_is_shown_with_what_its_extras_require() -> None:
    use = BaseUse(name=NAME("tiny"), version="1.0", required_by=(("plugin tiny-plugin", ">=1"),))
    made = lock(package("helper"), uses=(use,))
    (plugin,) = made.plugins
    graph = Graph(made.replace(plugins=(plugin.replace(provided=True, dependencies=(NAME("helper"),)),)))
    assert graph.tree().splitlines() == [
        "tiny-plugin (pypi: tiny)",
        "├── tiny 1.0 (base; requires >=1)",
        "└── helper 1.0",
    ]
    assert paths(graph, "helper") == ["tiny-plugin helper"]
    assert graph.why("tiny").is_base
