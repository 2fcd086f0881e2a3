from __future__ import annotations

import logging

import pytest

from vllm_plugins.core.errors import LoadError
from vllm_plugins.core.printable import printable
from vllm_plugins.startup import logger


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),  # C1: one character that begins a sequence, too
        ("a\rb", r"a\rb"),
        ("a\x08b\x7f", r"a\x08b\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066x\u2069\u200f", r"\u2066x\u2069\u200f"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("no\0thing", r"no\x00thing"),
        ("::add-mask::e", r"\x3a:add-mask::e"),
        ("a\n  \xa0::stop-commands::x\nb", "a\n  \xa0\\x3a:stop-commands::x\nb"),
        ("a ##[add-mask]e", r"a #\x23[add-mask]e"),
    ],
)
def test_a_character_that_is_not_printable_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text", ["", "a\tb\nc", "größer, 密码, é", "1\xa0000\u202fkB", "→ ✔ 🎉", r"C:\path", "a::b", "## [x]"]
)
def test_a_text_that_is_printable_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_field_of_an_error_adds_no_line_that_looks_like_ours() -> None:
    error = LoadError("it\x1b[2J fails", found="ValueError\n  next: run this", details=["one\nvllm-plugins: fine"])
    assert str(error) == (
        "it\\x1b[2J fails [plugin-load-failed]\n"
        "  found: ValueError\n      next: run this\n"
        "  one\n    vllm-plugins: fine"
    )


def test_a_line_of_the_log_is_printable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("built %s", "\x1b[31mred\x1b[0m")
        logger.info("100%% %s", "plain")
    assert caplog.messages == [r"built \x1b[31mred\x1b[0m", "100% plain"]
