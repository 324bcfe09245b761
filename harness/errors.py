"""The one family of errors that a user may see: each says what is wrong, where, and how to mend it, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from leakgauge.harness.system.exit_codes import ExitCode
from leakgauge.harness.system.plain_text import plain, quoted, shortened

MAX_SUGGESTED = 90
"""Characters of names that are listed where none is close."""


class LeakgaugeError(Exception):
    """A failure that the user can mend.

    Args:
        what: What is wrong.
        where: The file, key, plug-in or cell that it is wrong in.
        hint: What to do about it.
    """

    exit_code: int = ExitCode.MISTAKE
    longest = 600
    """Characters that the line may have."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets worker processes hand the error over."""
        return _rebuilt, (type(self), self.what, self.where, self.hint, self.__dict__)

    def __str__(self) -> str:
        return self.line(self.longest)

    def line(self, longest: int) -> str:
        """Returns the error in one line of so many characters at most, as far as its least parts allow."""
        where, what, hint = (plain(" ".join(part.split()), keep="") for part in (self.where, self.what, self.hint))
        # Each gives way in turn, though never all of it: a path in its middle, then what was found there.
        for least_where, least_what, least_hint in ((48, 100, 60), (48, 60, 40)):
            over = len(_line(where, what, hint)) - longest
            where = shortened(where, max(least_where, len(where) - max(over, 0)))
            over = len(_line(where, what, hint)) - longest
            what = shortened(what, max(least_what, len(what) - max(over, 0)))
            over = len(_line(where, what, hint)) - longest
            hint = shortened(hint, max(least_hint, len(hint) - max(over, 0)))
        return _line(where, what, hint)


def _line(where: str, what: str, hint: str) -> str:
    return (f"{where}: " if where else "") + what + (f" -- {hint}" if hint else "")


def _rebuilt(kind: type[LeakgaugeError], what: str, where: str, hint: str, state: dict[str, Any]) -> LeakgaugeError:
    error = kind(what, where=where, hint=hint)
    error.__dict__.update(state)
    return error


class ConfigError(LeakgaugeError):
    """A suite, option or command line that cannot be carried out."""

    longest = 200


class ProblemsError(ConfigError):
    """All that is wrong with a configuration, a line each.

    Args:
        problems: What is wrong, at least two.
        where: The configuration.
        hint: What to do about it.
    """

    most = 20
    """Problems that are told: a file of another kind has thousands."""

    def __init__(self, problems: Sequence[LeakgaugeError], where: str, hint: str = "mend these") -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        beyond = f"more than {self.most} problems, the first of them"
        super().__init__(f"{count} problems" if count <= self.most else beyond, where=where, hint=hint)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems, self.where, self.hint)

    def __str__(self) -> str:
        lines = (one.line(min(one.longest, self.longest) - 2) for one in self.problems[: self.most])
        return "\n".join([super().__str__(), *(f"  {line}" for line in lines)])


class VictimError(ConfigError):
    """A model that cannot be the victim: the line names every part that is odd, and all that is supported."""

    longest = 1200


class PluginError(LeakgaugeError):
    """A plug-in that is unknown, cannot be loaded, or broke its contract."""


class DataError(LeakgaugeError):
    """Images or weights that are missing, unreadable or not what they claim to be."""


class PayloadError(LeakgaugeError):
    """Bytes that are not a payload, or tokens that cannot be put into one."""


class AccessDeniedError(LeakgaugeError):
    """An attack asked for more than its threat model grants."""


class InterruptError(LeakgaugeError):
    """The user's Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class StoreError(LeakgaugeError):
    """A run folder that cannot be read or written."""

    longest = 200


class StoredProblemsError(ProblemsError, StoreError):
    """All that is wrong with a file that was stored, a line each."""


class ResourceError(LeakgaugeError):
    """Memory or disk ran out: no result of a cell, which stays to be measured.

    Attributes:
        missing: ``memory`` or ``disk``.
    """

    missing = ""


class FailedCellsError(LeakgaugeError):
    """A run that ended, some of whose cells failed or could not be measured."""

    exit_code = ExitCode.CELLS_FAILED


class SpoiledError(LeakgaugeError):
    """What all cells share was changed by a plug-in: nothing measured after it would count."""


_CLOSE = 0.5
"""How like a known name another must be to be meant by it."""
_MOST_KEYS = 4
"""Keys that are named where none is close."""


def suggest(name: str, known: list[str]) -> str:
    """Returns the mend for an unknown ``name``: the closest known one, or as many of them as a line holds."""
    close = difflib.get_close_matches(name[:80], known, n=1, cutoff=_CLOSE)
    if close:
        return f"did you mean {close[0]!r}?"
    shown: list[str] = []
    for other in sorted(known):
        if len(", ".join([*shown, other])) > MAX_SUGGESTED:
            return f"known: {', '.join(shown)} and {len(known) - len(shown)} more"
        shown.append(other)
    return f"known: {', '.join(shown) or 'none'}"


def missing_key(key: str, found: Mapping[Any, object], known: Sequence[str] = ()) -> tuple[str, str]:
    """Says that a key is missing, and which key that was found was meant to be it.

    Args:
        key: The key.
        found: The mapping that lacks it.
        known: Its other keys, none of which was meant to be this one.

    Returns:
        What is wrong, and the key that was meant; empty where none is close.
    """
    others = {one.lower(): one for one in found if isinstance(one, str) and one not in known and len(one) <= 80}
    close = difflib.get_close_matches(key, others, n=1, cutoff=_CLOSE)
    if close:
        return f"no key {key!r}; found {quoted(others[close[0]])} (did you mean {key!r}?)", others[close[0]]
    stated = [quoted(shortened(str(one), 24)) for one in list(found)[:_MOST_KEYS]]
    more = f" and {len(found) - len(stated)} more" if len(found) > len(stated) else ""
    return f"no key {key!r}; found {', '.join(stated) or 'nothing'}{more}", ""
