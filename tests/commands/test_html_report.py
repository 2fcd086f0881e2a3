"""The report of an audit, as a browser shows it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.kit import advisory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.kit.index import Index
    from tests.kit.place import Place

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: install chromium")
POINTS = {
    "vllm.general_plugins": {"register": "entropy:register"},
    "vllm.logits_processors": {"entropy": "entropy:E"},
}
EVIL = '<img src="http://127.0.0.1:9/" onerror="document.title=1"><script>document.title=2</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def report(place: Place, index: Index) -> Path:
    """Of three plugins: one that fails, one that warns, and one that tries to be a script."""
    index.wheel("entropy", "0.1.0", requires=["shared>=1", "torch>=2", "vllm"], entry_points=POINTS, license="MIT")
    index.wheel("evil", license=EVIL)
    index.wheel("shared", "1.2", requires=["deep"], license="Apache-2.0")
    index.wheel("deep", "3.0", requires=["shared"], license="GPL-3.0-only")
    place.write(
        """
        plugins:
          - {name: entropy, source: pypi, package: entropy}
          - {name: evil, source: pypi, package: evil}
        policy: {denied-licenses: [GPL-3.0-only], young: ignore}
        """
    )
    place.run("lock")
    path = place.root / "report.html"
    with advisory.serve(index) as teller:
        teller.vulnerable("shared", "PYSEC-2026-1", aliases=("CVE-2026-1",), fixed="2.0")
        words = ("audit", "--service", teller.service, "--html", path)
        done = place.run(*words, env={"PIP_INDEX_URL": teller.index_url}, check=False)
    assert done.returncode == 1
    return path


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened by somebody whose browser may go anywhere; anything that it fetches or complains of fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(report.as_uri())
    yield opened
    context.close()
    assert asked == [report.as_uri()]
    assert said == []


def rows(page: Page, caption: str) -> list[list[str]]:
    table = page.locator("table").filter(has=page.locator("caption", has_text=caption))
    return [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_what_a_reader_sees(page: Page, place: Place) -> None:
    assert page.title() == "Plugins for vLLM: audit"
    assert page.locator(".verdict").inner_text() == "✖ Fails: 1 failure, 2 warnings"
    findings = rows(page, "Findings")
    assert [(row[0], row[1], row[2], row[4]) for row in findings] == [
        ("✖ fails", "vulnerabilities", "shared 1.2", "entropy"),
        ("▲ warns", "license", "deep 3.0", "entropy"),
        ("▲ warns", "no-entry-point", "evil 1.0", "evil"),
    ]
    assert "PYSEC-2026-1 (CVE-2026-1); fixed in 2.0" in findings[0][3]
    assert "next: vllm-plugins lock --upgrade-package shared" in findings[0][3]
    assert rows(page, "Plugins")[0] == ["entropy", "entropy 0.1.0", f"index {place.index_url}, requested as entropy"]
    assert [row[:3] for row in rows(page, "Entry points")] == [
        ["vllm.general_plugins", "register", "entropy:register"],
        ["vllm.logits_processors", "entropy", "entropy:E"],
    ]
    assert {row[0] for row in rows(page, "Packages used from the base")} == {"torch 2.13.0+cpu", "vllm 0.32.0"}


def test_files_unfold(page: Page, place: Place) -> None:
    (wheel,) = place.package("entropy")["wheels"]
    files = page.locator("details").filter(has_text=wheel["name"])
    assert not files.locator("li").is_visible()
    files.locator("summary").click()
    assert files.locator("li").is_visible()
    assert f"sha256:{wheel['hashes']['sha256']}" in files.inner_text()


def test_what_strangers_wrote_is_text(page: Page) -> None:
    (licence,) = [row[1] for row in rows(page, "Packages") if row[0] == "evil 1.0"]
    assert licence == EVIL
    assert page.locator("img, script").count() == 0


def test_the_graph_is_drawn(page: Page) -> None:
    boxes = {node.locator("title").text_content(): node.bounding_box() for node in page.locator("g.node").all()}
    assert {"entropy", "evil", "entropy 0.1.0", "shared 1.2", "deep 3.0", "torch 2.13.0+cpu"} <= set(boxes)
    plugin, needed, below = (boxes[name] for name in ("entropy", "entropy 0.1.0", "shared 1.2"))
    assert plugin is not None
    assert needed is not None
    assert below is not None
    assert plugin["x"] + plugin["width"] < needed["x"]
    assert needed["x"] + needed["width"] < below["x"]
    edges = [edge.text_content() for edge in page.locator("path.edge").all()]
    assert "entropy 0.1.0 needs torch 2.13.0+cpu (>=2)" in edges
    assert "deep 3.0 needs shared 1.2" in edges
    assert page.locator("g.node.fail").locator("title").text_content() == "shared 1.2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_every_screen(page: Page, width: int, scheme: str, tmp_path: Path) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, front = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert (back, front) == {
        "light": ("rgb(246, 247, 249)", "rgb(22, 25, 31)"),
        "dark": ("rgb(16, 19, 23)", "rgb(232, 234, 238)"),
    }[scheme]
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 20_000
