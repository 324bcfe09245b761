"""Divides a user's images into splits: stratified by class, near duplicates together, blind to file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leakgauge.harness.errors import ConfigError, DataError, suggest
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.seeding import Streams

PROBE_SPLIT = "victim"
"""The images that a linear probe is fitted to; in no other split."""
PROBE_SHARE = 0.25
SHARES = {"attacker": 0.6, "calibration": 0.1, "search": 0.1, "evaluation": 0.2}
"""Default shares of the images that the probe leaves."""


def check_counts(per_split: Mapping[str, object]) -> None:
    """Raises ConfigError where a key of ``per_split`` is no split or a value no positive number of images."""
    known = [*SPLITS, PROBE_SPLIT]
    for key, value in per_split.items():
        if key not in known:
            raise ConfigError(f"unknown split {key!r}", where="per_split", hint=suggest(str(key), known))
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{value!r} images", where=f"per_split.{key}", hint="give a whole number of at least 1")


def split_counts(total: int, per_split: Mapping[str, int], *, probe: bool) -> dict[str, int]:
    """Decides how many images each split gets; what is not given takes its default share, the attacker the rest.

    Raises:
        DataError: There are not enough images.
    """
    counts: dict[str, int] = {}
    if probe:
        counts[PROBE_SPLIT] = per_split.get(PROBE_SPLIT, int(PROBE_SHARE * total))
    rest = total - sum(counts.values())
    for name in ("evaluation", "search", "calibration"):
        counts[name] = per_split.get(name, int(SHARES[name] * rest))
    counts["attacker"] = per_split.get("attacker", total - sum(counts.values()))
    if min(counts.values()) < 1 or sum(counts.values()) > total:
        wanted = ", ".join(f"{name} {max(count, 1)}" for name, count in counts.items())
        raise DataError(f"{total} usable images are not enough for the splits ({wanted})", hint=_HINT)
    return counts


_HINT = "add images, or ask for fewer in `per_split`"


def stratified_order(
    ids: Sequence[str], labels: Sequence[int] | None = None, groups: Sequence[int] | None = None
) -> list[list[int]]:
    """Orders images so that every stretch holds the classes in their proportions.

    Args:
        ids: Content hashes: they alone decide the shuffle.
        labels: Classes, or None.
        groups: Numbers of clusters that stay together, or None.

    Returns:
        Clusters of positions. A cluster counts as of the class of its first image.
    """
    streams = Streams(0, ("imagefolder", "order"))
    keys = [streams.child(image_id).entropy() for image_id in ids]
    clusters: dict[int, list[int]] = {}
    for i in sorted(range(len(ids)), key=keys.__getitem__):
        clusters.setdefault(i if groups is None else groups[i], []).append(i)
    by_class: dict[int, list[list[int]]] = {}
    for cluster in clusters.values():
        by_class.setdefault(0 if labels is None else labels[cluster[0]], []).append(cluster)
    placed: list[tuple[float, int, list[int]]] = []
    for members in by_class.values():
        size, before = sum(map(len, members)), 0
        for cluster in members:
            placed.append(((before + len(cluster) / 2) / size, keys[cluster[0]], cluster))
            before += len(cluster)
    return [cluster for _, _, cluster in sorted(placed)]


def assign(
    clusters: Sequence[Sequence[int]], counts: Mapping[str, int], rest: str | None = None
) -> dict[str, list[int]]:
    """Fills splits one after the other with whole clusters; one that no longer fits waits for the next split.

    Args:
        clusters: Positions of images, in the order wanted.
        counts: Images a split.
        rest: The split that takes what is left where that is less than asked for; None: none does.

    Returns:
        Positions by split, exactly as many as asked for. No cluster has images in two splits: of one that is cut, the
        rest is in none.

    Raises:
        DataError: The clusters do not fill the splits.
    """
    waiting, filled = list(clusters), dict[str, list[int]]()
    for name, count in counts.items():
        chosen, left = list[int](), list[Sequence[int]]()
        for cluster in waiting:
            if len(chosen) + len(cluster) <= count:
                chosen += cluster
            else:
                left.append(cluster)
        if len(chosen) < count and left:  # only clusters larger than the gap are left: cut one
            cut = left.pop(0)
            chosen += cut[: count - len(chosen)]
        if len(chosen) < count and (name != rest or not chosen):
            said = f"{len(chosen)} images are left for {name!r}, which needs {count}"
            much = max(map(len, clusters), default=0)
            tied = f"; {len(clusters)} groups of dependent images stay whole, the largest of {much}" if much > 1 else ""
            raise DataError(said + tied, hint=_HINT)
        filled[name], waiting = chosen, left
    return filled
