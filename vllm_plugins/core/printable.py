r"""Foreign text that is safe to print: metadata of wheels, exceptions of plugins, and the output of other programs.

A terminal obeys control characters: text could clear the screen, set the clipboard, or look like another line. Marks
of writing direction make text look like other text. So both are shown as Python writes them, as in ``\x1b``.
"""

from __future__ import annotations

__all__ = ["printable"]

# Spaces of several scripts are not printable for Python, and harmless.
_KEPT = frozenset("\n\t\xa0\u2009\u202f\u3000")


def printable(text: str) -> str:
    """A text with line breaks and tabs, and every other character that is not printable as an escape.

    These are control characters, marks of direction, invisible characters, and bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _KEPT
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
