"""The result schema: columns of cells.csv and images.parquet, with units, and the version that readers check."""

from __future__ import annotations

from typing import Literal, NamedTuple

SCHEMA_VERSION = 6
READABLE_VERSIONS = (1, 2, 3, 4, 5, 6)
"""What a version lacks is read as NaN, or as an empty text: version 1 side_bytes, air_time_ms, spectral_efficiency_bits
and lost_tokens, versions 1 and 2 label_agreement and all columns of attributes, versions 1 to 3 those of questions.
Versions 1 to 4 lack ``warning`` and the scores of a judge, and lower bounds are called conclusive there; their run.json
has no ``read``, which says what was read, and no ``judge``. Versions 1 to 5 lack ``could_gain_db``
and ``permuted_psnr_db``, and counted leakage above the best floor on each image: reports count it anew
(``store.partial.frames``).
"""
PER_IMAGE_FLOORS = 5
"""The last version that counted leakage above the best floor on each image."""

Kind = Literal["text", "int", "float"]


class Column(NamedTuple):
    """One column: its name, kind, unit and meaning."""

    name: str
    kind: Kind
    unit: str
    meaning: str


def _c(name: str, kind: Kind, unit: str, meaning: str) -> Column:
    return Column(name, kind, unit, meaning)


IDENTITY = (
    _c("task", "text", "", "task and version"),
    _c("defense", "text", "", "defense plug-in"),
    _c("operating_point", "text", "", "name of the defense configuration"),
    _c("channel", "text", "", "label of the channel"),
    _c("snr_db", "float", "dB", "Es/N0 per complex symbol; empty for a channel without noise"),
    _c("attack", "text", "", "label of the attack"),
    _c("threat_model", "text", "", "name of the threat model"),
    _c("seed", "int", "", "seed that the suite states"),
)
COSTS = (
    _c("quality", "float", "0..1", "task quality under the defense"),
    _c("quality_base", "float", "0..1", "task quality of the unmodified victim on the same images"),
    _c("gflops_edge", "float", "GFLOP/image", "operations run before the payload is sent, 2 per multiply-add"),
    _c(
        "gflops_total",
        "float",
        "GFLOP/image",
        "edge and server together; where the task asks questions, to answer one, the mean over the image's",
    ),
    _c("tokens", "float", "tokens/image", "tokens sent, protected ones included"),
    _c(
        "payload_bytes", "float", "byte/image", "length of the serialised payload, header and side information included"
    ),
    _c("side_bytes", "float", "byte/image", "of the payload, header and side information such as sizes"),
    _c("channel_uses", "float", "symbol/image", "complex symbols sent"),
    _c("air_time_ms", "float", "ms/image", "channel_uses over the suite's bandwidth_hz, which is assumed"),
    _c(
        "spectral_efficiency_bits",
        "float",
        "bit/symbol",
        "payload bits over channel uses; over an analog channel, bits that the symbols stand in for",
    ),
    _c("lost_tokens", "float", "tokens/image", "tokens sent that never reached the server"),
    _c("latency_ms", "float", "ms/image", "edge and server at batch 1, one thread, median over a warmed-up sample"),
)
QUESTION_COSTS = (
    _c("questions", "float", "questions/image", "questions asked about an image, for which one payload is sent"),
    _c("gflops_tower", "float", "GFLOP/image", "of gflops_total, the image tower with its merging and the codec"),
    _c("gflops_projector", "float", "GFLOP/image", "of gflops_total, the projector"),
    _c("gflops_prefill", "float", "GFLOP/question", "of gflops_total, the language model on the prompt"),
    _c("gflops_decoding", "float", "GFLOP/question", "of gflops_total, the language model on the answer"),
)
"""Costs of a victim that answers questions; empty for others."""
KIND_COLUMNS = (
    _c("operating_point", "text", "", "name of the defense configuration"),
    _c("channel", "text", "", "label of the channel"),
    _c("seed", "int", "", "seed that the suite states"),
    _c("kind", "text", "", "kind of question; ``all`` for all of them"),
    _c("questions", "int", "questions", "questions of this kind"),
    _c("quality", "float", "0..1", "share of them answered right under the defense; every question counts alike"),
    _c("quality_lo", "float", "0..1", "lower end of the 95 % bootstrap interval of quality"),
    _c("quality_hi", "float", "0..1", "upper end of the 95 % bootstrap interval of quality"),
    _c("quality_base", "float", "0..1", "share of them that the unmodified victim answers right"),
    _c("change", "float", "0..1", "quality less quality_base, paired by image"),
    _c("change_lo", "float", "0..1", "lower end of the 95 % bootstrap interval of change"),
    _c("change_hi", "float", "0..1", "upper end of the 95 % bootstrap interval of change"),
)
"""Columns of quality_by_kind.csv, which a run has where its task asks questions."""
SCORES = (
    _c("psnr_db", "float", "dB", "peak signal-to-noise ratio; the mean of per-image values"),
    _c("ssim", "float", "-1..1", "structural similarity, Gaussian window 11, sigma 1.5, data range 1"),
    _c("lpips", "float", "", "LPIPS v0.1, AlexNet; lower means a better reconstruction, so more leakage"),
    _c(
        "reid_top1",
        "float",
        "0..1",
        "share of images whose original comes first in the gallery of all: nearest to the reconstruction by victim "
        "features, or ranked by an identity probe",
    ),
    _c(
        "label_agreement",
        "float",
        "0..1",
        "share of reconstructions whose top class, by the unmodified victim, is that of the original; where the task "
        "asks, share of an image's questions that it answers as on the original",
    ),
    _c(
        "judge_reid_top1",
        "float",
        "0..1",
        "share of images whose original comes first in the gallery of all by features of the judge that run.json "
        "names, by default independent of the victim; or ranked by an identity probe, which needs no judge",
    ),
    _c(
        "judge_agreement",
        "float",
        "0..1",
        "centred cosine of the judge's features of reconstruction and original, 0 if negative; 0 means unrelated",
    ),
)
SCORE_NAMES = tuple(c.name for c in SCORES)
ATTRIBUTE_CORRECT = _c("attribute_correct", "float", "0..1", "1 where a probe names the image's attribute, else 0")
PERMUTED = _c(
    "permuted_psnr_db",
    "float",
    "dB",
    "PSNR of the reconstruction of another, unrelated image against this original: what a guess of this attack reaches "
    "that sees nothing of the image; the other is the same for all cells of a run, and of another cluster",
)
"""Of reconstructions; empty for probes, and where all images are of one cluster."""
ATTRIBUTES = (
    _c("attribute", "text", "", "what an attribute probe was asked; empty for all else"),
    _c("attribute_accuracy", "float", "0..1", "share of images whose attribute the probe names"),
    _c(
        "attribute_chance",
        "float",
        "0..1",
        "the same share for the attribute most common among the attacker's images of the task label",
    ),
    _c("attribute_auc", "float", "0..1", "area under the ROC curve, each class against the rest; mean over classes"),
)
_UNITS = {column.name: column.unit for column in (*COSTS, *SCORES, *ATTRIBUTES)}
INTERVALS = tuple(
    _c(
        f"{name}_{end}",
        "float",
        _UNITS[name],
        f"{'lower' if end == 'lo' else 'upper'} end of the 95 % bootstrap interval of {name}",
    )
    for name in ("quality", *SCORE_NAMES, "attribute_accuracy", "attribute_auc")
    for end in ("lo", "hi")
)
OUTCOME = (
    _c(
        "leakage",
        "float",
        "dB",
        "mean over images of PSNR minus that of the floor that is best on average in the exposure",
    ),
    _c("leakage_lo", "float", "dB", "lower end of the 95 % bootstrap interval of leakage"),
    _c("leakage_hi", "float", "dB", "upper end of the 95 % bootstrap interval of leakage"),
    _c(
        "verdict",
        "text",
        "",
        "conclusive; lower bound (converged, but unable to find positions that are hidden); or inconclusive (not shown "
        "to be converged or capable, or failed)",
    ),
    _c("reason", "text", "", "why a cell is no more than a lower bound, inconclusive, unscored or failed"),
    _c("warning", "text", "", "where another setting of the same plug-in leaks clearly more than a conclusive cell"),
    _c(
        "could_gain_db",
        "float",
        "dB",
        "what an attack that is not shown to be converged may still gain in PSNR, from its last doublings of steps or "
        "images; empty where that is not known, for probes, and where it is shown to be converged",
    ),
    _c("attack_seconds", "float", "s", "training and reconstruction; not part of any comparison"),
)
CELL_COLUMNS = (
    _c("cell", "text", "", "content hash of the cell"),
    *IDENTITY,
    _c("n", "int", "images", "images scored"),
    _c("status", "text", "", "done or failed"),
    _c("code", "text", "", "digest of the code that measured the cell; run.json says under `code` what it stands for"),
    *COSTS,
    *QUESTION_COSTS,
    *SCORES,
    *ATTRIBUTES,
    *INTERVALS,
    *OUTCOME,
)
CELL_KEY = r"[0-9a-f]{16}"
"""What the name of a cell looks like (a regular expression): it becomes a file name, so nothing else is let in."""
_ADDED: dict[int, tuple[str, ...]] = {
    2: ("side_bytes", "air_time_ms", "spectral_efficiency_bits", "lost_tokens"),
    3: ("label_agreement", "attribute", "attribute_accuracy", "attribute_chance", "attribute_auc", "attribute_correct"),
    4: tuple(column.name for column in QUESTION_COSTS),
    6: (PERMUTED.name, "could_gain_db"),
}
_FIRST = frozenset(
    {c.name for c in (*IDENTITY, *COSTS)} - {*_ADDED[2]}
    | {"cell", "n", "status", "image", "label", "group", "psnr_db", "ssim", "lpips", "reid_top1"}
    | {"leakage", "leakage_lo", "leakage_hi", "verdict", "reason", "attack_seconds"}
)


def required_columns(columns: tuple[Column, ...], version: int) -> frozenset[str]:
    """Returns the names among ``columns`` that a table of a schema version must hold; later ones may be missing."""
    known = _FIRST.union(*(names for since, names in _ADDED.items() if since <= version))
    return frozenset(column.name for column in columns if column.name.removesuffix("_lo").removesuffix("_hi") in known)


TIME_COLUMNS = ("latency_ms", "attack_seconds")
"""Columns that hold times: the only ones that may differ between two runs of one suite."""

IMAGE_COLUMNS = (
    _c("cell", "text", "", "content hash of the cell"),
    *IDENTITY,
    _c("image", "text", "", "content hash of the image"),
    _c("label", "int", "", "task label, -1 where there is none"),
    _c("group", "int", "", "cluster of dependent images"),
    *[c for c in (*COSTS, *QUESTION_COSTS) if c.name not in {"latency_ms"}],
    *SCORES,
    PERMUTED,
    ATTRIBUTE_CORRECT,
    _c("leakage", "float", "dB", "PSNR minus that of the floor that is best on average in the exposure, on this image"),
)
