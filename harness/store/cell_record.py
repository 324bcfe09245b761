"""What is measured of one cell, typed: images rebuilt, an attribute named, candidates ranked, or a failure.

``to_json`` and ``record_of`` know how it stands in the JSON of a part (``values.stored_shapes.StoredPart``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias, cast

from leakgauge.harness.system.json_data import Json
from leakgauge.harness.system.plain_text import quoted
from leakgauge.harness.values.stored_shapes import StoredPart

Status = Literal["done", "failed"]
Scores: TypeAlias = Mapping[str, Sequence[float | None]]
"""A number an image by name; NaN, or in parts of old versions null, where unscored."""
Kinds: TypeAlias = Mapping[str, Scores]
"""For each kind of question, by image: ``right`` answers, those of the unmodified victim (``base``), ``questions``."""
Place: TypeAlias = tuple[str, str, str, int]
"""Operating point, channel, threat model and seed: what all cells of an exposure share."""


@dataclass(frozen=True)
class CellIdentity:
    """The columns that name a cell (``values.columns.IDENTITY``), and its content hash."""

    cell: str
    task: str
    defense: str
    operating_point: str
    channel: str
    snr_db: float | None
    attack: str
    threat_model: str
    seed: int

    @property
    def exposure(self) -> Place:
        """Names the exposure."""
        return self.operating_point, self.channel, self.threat_model, self.seed

    @property
    def attacker(self) -> tuple[str, str, int]:
        """Names the attacker, whatever the operating point: attack, threat model and seed."""
        return self.attack, self.threat_model, self.seed

    def columns(self) -> dict[str, str | float | None]:
        """Returns the columns by name."""
        return dict(asdict(self))


@dataclass(frozen=True)
class CellHead:
    """What a cell holds whatever became of its attack.

    Args:
        identity: Which cell it is.
        plugin: Name of the attack's plug-in.
        code: Digest of the code that measured it.
        costs: (B,) each: what its operating point cost; empty where that could not be measured.
        latency_ms: Of edge and server for one image.
        kinds: Answers by kind of question; empty where nothing is asked.
        resolved: What calibration made of the operating point; empty where a suite leaves nothing to it.
    """

    identity: CellIdentity
    plugin: str = ""
    code: str | None = None
    costs: Scores = field(default_factory=dict)
    latency_ms: float | None = None
    kinds: Kinds = field(default_factory=dict)
    resolved: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class CellRecord:
    """One cell; what became of it is told by the class."""

    status: ClassVar[Status] = "done"
    head: CellHead

    @property
    def identity(self) -> CellIdentity:
        """Which cell it is."""
        return self.head.identity

    @property
    def scores(self) -> Scores:
        """(B,) each: scores by column name; those that are missing are unscored."""
        return {}

    @property
    def is_floor(self) -> bool:
        """Whether it is a guess that sees nothing of the target."""
        return False

    def outcome(self) -> dict[str, Json]:
        """Returns what a part holds beside its head."""
        return {}

    def to_json(self) -> dict[str, Json]:
        """Returns the part, as ``record_of`` reads it."""
        head = self.head
        optional: dict[str, object] = {"kinds": head.kinds, "resolved": head.resolved}
        data: dict[str, object] = {
            "identity": asdict(head.identity),
            "plugin": head.plugin,
            "code": head.code,
            "costs": head.costs,
            "latency_ms": head.latency_ms,
            **{name: value for name, value in optional.items() if value},
            "status": self.status,
            **self.outcome(),
        }
        return cast("dict[str, Json]", data)


@dataclass(frozen=True)
class FailedRecord(CellRecord):
    """A cell whose attack, or whose operating point, failed: why, and the traceback."""

    status: ClassVar[Status] = "failed"
    reason: str = ""
    traceback: str = ""

    def outcome(self) -> dict[str, Json]:
        """Returns what a part holds beside its head."""
        return {"reason": self.reason, "traceback": self.traceback, "scores": {}, "floor": False}


@dataclass(frozen=True)
class MeasuredRecord(CellRecord):
    """A cell that was measured.

    Args:
        head: What it holds whatever became of its attack.
        measured: (B,) each, by column name.
        unscored: Why scores are missing, by name.
        unconverged: Why the attacker is not shown to be converged; None where it is.
        lower_bound: Why the attacker gives no more than a lower bound; empty where it does.
        attack_seconds: Training and answers; None in parts of old versions.
        could_gain_db: What an attacker that is not shown to be converged may still gain; None where that is not known.
    """

    kind: ClassVar[str] = ""
    measured: Scores = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    unconverged: str | None = None
    lower_bound: str = ""
    attack_seconds: float | None = None
    could_gain_db: float | None = None

    @property
    def scores(self) -> Scores:
        """(B,) each: scores by column name."""
        return self.measured

    def outcome(self) -> dict[str, Json]:
        """Returns what a part holds beside its head."""
        data: dict[str, object] = {
            "unconverged": self.unconverged,
            "could_gain_db": self.could_gain_db,
            "floor": self.is_floor,
            "unscored": self.unscored,
            "attack_seconds": self.attack_seconds,
            "scores": self.measured,
            "kind": self.kind,
            "lower_bound": self.lower_bound,
        }
        return cast("dict[str, Json]", data)

    def unscored_text(self) -> str:
        """Says which scores it lacks and why: a reason once, after all that it holds for."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.unscored.items():
            by_reason.setdefault(reason, []).append(name)
        return "; ".join(f"{', '.join(names)} unscored: {reason}" for reason, names in by_reason.items())


@dataclass(frozen=True)
class RebuiltRecord(MeasuredRecord):
    """Images were rebuilt; ``floor`` where that saw nothing of the target."""

    kind: ClassVar[str] = "reconstruction"
    floor: bool = False

    @property
    def is_floor(self) -> bool:
        """Whether it is a guess that sees nothing of the target."""
        return self.floor

    def rescored(self, scores: Scores, unscored: Mapping[str, str], code: str | None) -> RebuiltRecord:
        """Returns the record with other scores, and the digest of the code that found them."""
        return replace(self, measured=scores, unscored=unscored, head=replace(self.head, code=code))


@dataclass(frozen=True)
class ProbeRecord(MeasuredRecord):
    """A probe was asked.

    Args:
        chance: What guessing reaches, by score.
        proves_on_baseline: Whether it must beat chance on the undefended payload to prove anything.
    """

    chance: Mapping[str, float] = field(default_factory=dict)
    proves_on_baseline: bool = True

    def outcome(self) -> dict[str, Json]:
        """Returns what a part holds beside its head."""
        return {**super().outcome(), "proves_on_baseline": self.proves_on_baseline, "chance": dict(self.chance)}


@dataclass(frozen=True)
class NamedRecord(ProbeRecord):
    """An attribute was named; ``cell_scores`` are those of all images together, by column name."""

    kind: ClassVar[str] = "attribute"
    attribute: str = ""
    cell_scores: Mapping[str, float | None] = field(default_factory=dict)

    def outcome(self) -> dict[str, Json]:
        """Returns what a part holds beside its head."""
        return {**super().outcome(), "attribute": self.attribute, "cell_scores": dict(self.cell_scores)}


@dataclass(frozen=True)
class RankedRecord(ProbeRecord):
    """Candidates were ranked."""

    kind: ClassVar[str] = "identity"


def record_of(part: StoredPart) -> CellRecord:
    """Returns what a part holds. Older versions lack what came later, which then has its default.

    Raises:
        ValueError: It is of no kind that is known.
    """
    kinds = {name: counts.model_dump() for name, counts in part.kinds.items()}
    identity = CellIdentity(**{name: getattr(part.identity, name) for name in CellIdentity.__dataclass_fields__})
    head = CellHead(identity, part.plugin, part.code, part.costs, part.latency_ms, kinds, part.resolved)
    if part.status != "done":
        return FailedRecord(head, part.reason, part.traceback)
    how = (part.unscored, part.unconverged, part.lower_bound, part.attack_seconds, part.could_gain_db)
    if part.kind == RebuiltRecord.kind:
        return RebuiltRecord(head, part.scores, *how, part.floor)
    if part.kind == NamedRecord.kind:
        asked = (part.chance, part.proves_on_baseline, part.attribute, part.cell_scores)
        return NamedRecord(head, part.scores, *how, *asked)
    if part.kind == RankedRecord.kind:
        return RankedRecord(head, part.scores, *how, part.chance, part.proves_on_baseline)
    raise ValueError(f"kind: {quoted(part.kind)} is none that is known")
