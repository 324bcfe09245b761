"""What readers rely on in the JSON of a run folder: run.json, parts and learning curves. More may stand beside it."""

from __future__ import annotations

from typing import Annotated, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from leakgauge.harness.system.json_data import Json
from leakgauge.harness.system.plain_text import quoted, shortened
from leakgauge.harness.values.columns import CELL_KEY

Side = Annotated[int, Field(strict=True, ge=0, le=65_536)]
Count = Annotated[int, Field(strict=True, ge=0, le=100_000_000)]
Key = Annotated[str, Field(pattern=f"^{CELL_KEY}$")]
Text = Annotated[str, Field(strict=True, max_length=10_000)]
Label = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Scores = dict[Label, list[Number | None]]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class TaskEntry(_Open):
    """What run.json says of the task."""

    name: Text = ""
    victim: Text = ""
    quality_name: Text = ""
    image_shape: tuple[Side, Side, Side] | None = None
    evaluation_images: Count | None = None


class AttackEntry(_Open):
    """What run.json says of an attack."""

    plugin: Text = ""
    kind: Text = "reconstruction"
    floor: Flag = False
    knowledge: dict[Label, object] | None = None


class Provenance(_Open):
    """Where a run comes from."""

    commit: Text | None = None
    dirty: Flag | None = None
    packages: dict[Label, object] | None = None


class StoredSession(_Open):
    """One start of a run."""

    command: Text | list[Text] | None = None


class Manifest(_Open):
    """run.json."""

    schema_version: Annotated[int, Field(strict=True)]
    status: Text | None = None
    plan_key: Text | None = None
    suite: dict[str, object] | None = None
    task: TaskEntry | None = None
    data: dict[Label, object] | None = None
    attacks: dict[Label, AttackEntry] = Field(default_factory=dict)
    cells: list[Key] | None = None
    operating_points: dict[Label, dict[Label, object]] = Field(default_factory=dict)
    provenance: Provenance | None = None
    sessions: list[StoredSession] | None = None


class TaskStatement(TypedDict, total=False):
    """What run.json says of the task, as Python reads it."""

    name: str
    version: int | str
    quality_name: str
    victim: str
    image_shape: list[int]
    evaluation_images: int


class AttackStatement(TypedDict, total=False):
    """What run.json says of an attack."""

    plugin: str
    kind: str
    floor: bool
    knowledge: dict[str, Json]
    training: str
    layout: str
    adaptive: bool


class SessionStatement(TypedDict, total=False):
    """What run.json says of one start of a run."""

    started: str
    command: str
    workers: int
    commit: str | None
    finished: str
    seconds: float


class RunManifest(TypedDict, total=False):
    """run.json as Python reads it; older versions lack some of it."""

    schema_version: int
    status: str
    plan_key: str
    suite: dict[str, Json]
    task: TaskStatement
    data: dict[str, str]
    judge: dict[str, Json]
    read: dict[str, Json]
    attacks: dict[str, AttackStatement]
    metrics: list[dict[str, Json]]
    cells: list[str]
    code: dict[str, dict[str, str]]
    threads_per_worker: int
    provenance: dict[str, Json]
    operating_points: dict[str, dict[str, object]]
    sessions: list[SessionStatement]
    total_seconds: float
    scored_again: list[dict[str, Json]]


class Identity(_Open):
    """Which cell a part is of."""

    cell: Key
    task: Text
    defense: Text
    operating_point: Text
    channel: Text
    snr_db: Number | None
    attack: Text
    threat_model: Text
    seed: Annotated[int, Field(strict=True)]


class KindCounts(_Open):
    """Answers to one kind of question, a number an image."""

    right: list[Number]
    base: list[Number]
    questions: list[Number]


class StoredPart(_Open):
    """What was measured for one cell."""

    identity: Identity
    plugin: Text = ""
    code: Text | None = None
    status: Text
    costs: dict[Label, list[Number]]
    latency_ms: Number | None
    scores: Scores
    floor: Flag
    reason: Text = ""
    traceback: Annotated[str, Field(strict=True)] = ""
    kinds: dict[Label, KindCounts] = Field(default_factory=dict)
    resolved: dict[Label, object] = Field(default_factory=dict)
    kind: Text = "reconstruction"
    unscored: dict[Label, Text] = Field(default_factory=dict)
    unconverged: Text | None = None
    could_gain_db: Number | None = None
    lower_bound: Text = ""
    attack_seconds: Number | None = None
    attribute: Text = ""
    cell_scores: dict[Label, Number | None] = Field(default_factory=dict)
    chance: dict[Label, Number] = Field(default_factory=dict)
    proves_on_baseline: Flag = True


class StoredCurvePoint(_Open):
    """One evaluation of a learning curve."""

    step: Count
    loss: Number
    heldout_psnr_db: Number


class Curve(_Open):
    """A learning curve."""

    planned_steps: Count
    points: list[StoredCurvePoint]
    doubling_gain_db: Number | None = None
    half_budget: StoredCurvePoint | None = None
    quarter_budget: StoredCurvePoint | None = None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Reduces pydantic's report to its first problem, bounded: (what, place)."""
    return bounded_problem(error.errors(include_url=False)[0])


def bounded_problem(problem: ErrorDetails) -> tuple[str, str]:
    """Reduces a problem of pydantic's report to what it is and where, bounded."""
    place = shortened(".".join(str(part) for part in problem["loc"] if part != "[key]"), 60)
    what = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] != "value_error" and not isinstance(problem["input"], (dict, list)):
        what = f"{what} (found {quoted(problem['input'])})" if problem["type"] != "missing" else what
    return shortened(what, 160), place


Shape = TypeVar("Shape", bound=BaseModel)


def check_shape(data: object, shape: type[Shape]) -> Shape:
    """Returns data in its shape; raises ValueError, in one bounded line, where it lacks what readers rely on."""
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        what, place = first_problem(error)
        raise ValueError(f"{place}: {what}" if place else what) from error
