"""The one family of errors that a user may see: each says what is wrong, where, and how to mend it, in one line."""

from __future__ import annotations


class LeakgaugeError(Exception):
    """A failure that the user can mend.

    Args:
        what: What is wrong.
        where: The file, key, plug-in or cell that it is wrong in.
        mend: What to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what, where, mend)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f" -- {self.mend}" if self.mend else ""
        return " ".join(f"{place}{self.what}{mend}".split())


class ConfigError(LeakgaugeError):
    """A suite, option or command line that cannot be carried out."""


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

    exit_code = 130


class StoreError(LeakgaugeError):
    """A run folder that cannot be read or written."""
