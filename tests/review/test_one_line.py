"""What an index, a publisher or an advisory service says stays in one line, so it adds none that looks like ours."""

from __future__ import annotations

import base64
import json

from vllm_plugins.packages import attestations
from vllm_plugins.review import advisories
from vllm_plugins.review._audit import provenance

FORGED = "evil\nvllm-plugins: no problems\u2028\x85\r|"
LINE = "evil vllm-plugins: no problems |"
SHA256 = "a" * 64


def test_publishers() -> None:
    statement = base64.b64encode(json.dumps({"subject": [{"digest": {"sha256": SHA256}}]}).encode()).decode()
    bundle = {
        "publisher": {"kind": FORGED, "repository": FORGED},
        "attestations": [{"envelope": {"statement": statement}}],
    }
    assert provenance._publishers({"attestation_bundles": [bundle]}, SHA256) == {f"{LINE} {LINE}"}
    assert attestations.words((("email", FORGED), ("kind", "Google"))) == f"Google {LINE}"


def test_advisories() -> None:
    vulnerability = {"id": FORGED, "aliases": [FORGED, "B\n"], "fix_versions": [FORGED]}
    document = {
        "dependencies": [
            {"name": FORGED, "version": FORGED, "vulns": [vulnerability]},
            {"name": FORGED, "skip_reason": FORGED},
        ]
    }
    (found,), skipped = advisories._parse(document, [])
    assert (found.package, found.version, found.ids, found.fixed_in) == (LINE, LINE, (LINE, "B"), (LINE,))
    assert skipped == {LINE: LINE}
