"""What an exposure is, whatever it is called: by that, runs of other suites, seeds and code are recognised as alike."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from leakgauge.harness.suite.planning import content_hash, plan
from leakgauge.harness.suite.schema import Suite

PointPlace = tuple[str, str, str]
"""Names of operating point, channel and threat model."""


class ExposureContent(BaseModel):
    """All that decides what is sent and who sees it, but for names, seeds and code: by its hash an entry is found.

    ``images`` are digests of the splits that have a say: of the images that are scored, of those that thresholds are
    calibrated on, and of those that attackers learn from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    victim: str
    images: dict[str, str]
    defense: dict[str, object]
    threat_model: dict[str, object]

    @property
    def key(self) -> str:
        """The hash."""
        return content_hash(self.model_dump(mode="json"))


def exposures_of(suite: Suite, data: Mapping[str, object]) -> dict[PointPlace, ExposureContent]:
    """Returns what the operating points of a run are, by name; nothing where ``data`` of run.json is not whole."""
    if not {"task", "victim", "split_evaluation", "split_calibration", "split_attacker"} <= data.keys():
        return {}
    found: dict[PointPlace, ExposureContent] = {}
    for cell in plan(suite, ""):
        exposure = cell.exposure
        place = exposure.point.name, exposure.channel.label, exposure.threat_model.name
        shifted = ("shifted",) if exposure.threat_model.auxiliary.domain == "shifted" else ()
        splits = ("evaluation", "calibration", "attacker", *shifted)
        if place not in found:
            found[place] = ExposureContent(
                task=str(data["task"]),
                victim=str(data["victim"]),
                images={name: str(data.get(f"split_{name}", "")) for name in splits},
                defense=exposure.defense.model_dump(mode="json"),
                threat_model=exposure.threat_model.model_dump(mode="json", exclude={"name"}),
            )
    return found
