"""Libraries that a plain run does without: which extra brings one that is missing."""

from __future__ import annotations

from importlib.util import find_spec

from leakgauge.harness.errors import ConfigError

EXTRAS = {
    "optuna": "search",
    "moocore": "search",
    "sqlalchemy": "search",
    "transformers": "vqa",
    "tokenizers": "vqa",
    "sionna": "channels",
}
"""The extra of ``pyproject.toml`` by the module that it brings."""


def missing_extra(error: BaseException | None) -> str:
    """Returns the extra that would mend an import that failed; empty where none would.

    Args:
        error: What was raised, at once or for that reason.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
            return extra
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return ""


def hint_of(error: BaseException | None, otherwise: str = "") -> str:
    """Returns how to mend an import that failed: install the extra, or what is said otherwise."""
    extra = missing_extra(error)
    return f"pip install 'leakgauge[{extra}]'" if extra else otherwise


def require(module: str, where: str) -> None:
    """Checks that a module of ``EXTRAS`` is installed, without importing it.

    Raises:
        ConfigError: It is not.
    """
    if find_spec(module) is None:
        raise ConfigError(f"{module} is not installed", where=where, hint=f"pip install 'leakgauge[{EXTRAS[module]}]'")
