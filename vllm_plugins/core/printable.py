r"""Foreign text that is safe to print: metadata of wheels, exceptions of plugins, and the output of other programs.

A terminal obeys control characters: text could clear the screen, set the clipboard, or look like another line. Marks
of writing direction make text look like other text. So both are shown as Python writes them, as in ``\x1b``. The
same is done to what the log of GitHub Actions obeys: a line that begins with ``::``, after spaces, too, and ``##[``.
"""

from __future__ import annotations

__all__ = ["printable"]

# Spaces of several scripts are not printable for Python, and harmless.
_KEPT = frozenset("\n\t\xa0\u2009\u202f\u3000")


def printable(text: str) -> str:
    """A text with line breaks and tabs, and every other character that is not printable as an escape.

    These are control characters, marks of direction, invisible characters, and bytes that are not UTF-8. No line is a
    command to GitHub Actions.
    """
    return _without_commands(text if text.isprintable() else _escaped(text))


def _without_commands(text: str) -> str:
    text = text.replace("##[", r"#\x23[")
    if "::" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(line.replace(":", r"\x3a", 1) if line.lstrip().startswith("::") else line for line in lines)


def _escaped(text: str) -> str:
    return "".join(
        character
        if character.isprintable() or character in _KEPT
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
