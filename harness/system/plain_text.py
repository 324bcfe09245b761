"""Text from outside made harmless: what UTF-8 cannot hold, what steers a terminal, what a spreadsheet would compute."""

from __future__ import annotations

import re
import reprlib
import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of what is not seen: control characters of both sets, changes of direction, lone surrogates."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_STARTS = tuple("=+-@\t\r'\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the start of a formula, wide forms included, and the quote that guards against it."""


def plain(text: str, keep: str = "\n\t") -> str:
    r"""Returns text with everything escaped that is not seen: ``\x1b`` stands for the escape character.

    Args:
        text: Any text: a file name, a plug-in's message, a label.
        keep: Control characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNSEEN else _escaped(c) for c in text)


def is_plain(text: str, keep: str = "\n\t") -> bool:
    """Tells whether ``plain`` would leave a text as it is."""
    return plain(text, keep) == text


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if ord(character) > 0x7F else repr(character)[1:-1]


def shortened(text: str, longest: int) -> str:
    """Returns text of at most ``longest`` characters; the middle is left out where it is longer."""
    if len(text) <= longest:
        return text
    tail = (longest - 1) // 2
    return f"{text[: longest - 1 - tail]}…{text[len(text) - tail :]}"


def quoted(value: object, longest: int = 40) -> str:
    """Returns a bounded ``repr`` of anything that was read, for a message."""
    if isinstance(value, str):
        return repr(plain(shortened(value, longest), keep=""))
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {type(value).__name__} of {len(value)}"
    try:
        return shortened(plain(repr(value), keep=""), longest)
    except (ValueError, RecursionError):  # an integer of thousands of digits has no repr
        return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """Writes a value for a message, at most some 60 characters of it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxlist = short.maxtuple = short.maxdict = 6
    return short.repr(value)


def formula_guarded(text: str) -> str:
    """Returns what a CSV holds for a text: a quote before what a spreadsheet would compute; numbers stay."""
    guard = text.startswith(_STARTS) and not _NUMBER.fullmatch(text)
    return f"'{text}" if guard else text


def formula_unguarded(text: str) -> str:
    """Returns the text that ``formula_guarded`` was given."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_STARTS) else text
