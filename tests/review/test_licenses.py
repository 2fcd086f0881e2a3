"""Licences in METADATA, and what a policy makes of them."""

from __future__ import annotations

import pytest

from vllm_plugins.review._audit import licenses


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("License: MIT\nLicense-Expression: BSD-3-Clause", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT License"),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: Apache Software License",
            "Apache Software License, MIT License",
        ),
        ("Classifier: License :: OSI Approved\nLicense: BSD", "BSD"),
        ("Classifier: Programming Language :: Python\nLicense: ISC", "ISC"),
        ("License: Apache-2.0\n        see LICENSE", "Apache-2.0"),
        ("License: UNKNOWN", None),
        ("License: none", None),
        ("License:", None),
        ("Summary: nothing", None),
    ],
)
def test_the_declared_licence_is_read(headers: str, expected: str | None) -> None:
    assert licenses.declared(f"Metadata-Version: 2.4\nName: tiny\n{headers}\n\nLicense: body\n".encode()) == expected


def test_a_long_licence_is_cut() -> None:
    assert len(licenses.declared(b"License: " + b"x" * 5000 + b"\n") or "") == 100
    assert len(licenses.declared(b"License-Expression: " + b"x" * 5000 + b"\n") or "") == 1000


ALLOWED, DENIED = "does not allow", "denies"


@pytest.mark.parametrize(
    ("declared", "allowed", "denied", "refused"),
    [
        (None, [], [], "declares no licence"),
        ("MIT", [], [], None),
        ("MIT", ["MIT"], [], None),
        ("MIT", ["mit"], [], None),
        ("MIT", ["Apache-2.0"], [], ALLOWED),
        ("GPL-3.0-only", [], ["GPL-3.0-only"], DENIED),
        ("gpl-3.0-only", [], ["GPL-3.0-only"], DENIED),
        ("MIT OR GPL-3.0-only", [], ["GPL-3.0-only"], None),
        ("GPL-3.0-only OR MIT", ["MIT"], [], None),
        ("MIT AND GPL-3.0-only", [], ["GPL-3.0-only"], DENIED),
        ("MIT AND GPL-3.0-only", ["MIT"], [], ALLOWED),
        ("MIT AND Apache-2.0", ["MIT", "Apache-2.0"], [], None),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", [], ["GPL-3.0-only"], None),
        ("(MIT AND GPL-3.0-only) OR GPL-3.0-only", [], ["GPL-3.0-only"], DENIED),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", ["MIT"], [], None),
        ("Apache-2.0 AND MIT OR GPL-3.0-only", ["Apache-2.0"], [], ALLOWED),
        ("GPL-2.0-only WITH Classpath-exception-2.0", [], ["GPL-2.0-only"], None),
        ("GPL-2.0-only WITH Classpath-exception-2.0", [], ["GPL-2.0-only WITH Classpath-exception-2.0"], DENIED),
        ("MIT License", ["MIT License"], [], None),
        ("Apache Software License, MIT License", [], ["MIT License"], DENIED),
        ("Apache Software License, MIT License", ["MIT License"], [], ALLOWED),
        ("Apache Software License, MIT License", ["Apache Software License, MIT License"], [], None),
        ("MIT AND", ["MIT"], [], ALLOWED),
    ],
)
def test_a_policy_is_applied(
    declared: str | None, allowed: list[str], denied: list[str], refused: str | None
) -> None:
    problem = licenses.problem(declared, allowed=allowed, denied=denied)
    assert (problem is None) is (refused is None), problem
    assert refused is None or refused in str(problem)


def test_denied_counts_before_allowed() -> None:
    problem = licenses.problem("MIT", allowed=["MIT"], denied=["MIT"])
    assert problem == "is under MIT, which the policy denies"
