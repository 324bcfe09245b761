"""Cascade: closed-form maps from what a guess still gets wrong, seen through the edge, to its error in pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from leakgauge.attacks.training.context_features import Scaling, context_of, laid
from leakgauge.attacks.training.folded_ridge import Features, FoldedRidge, LinearMap
from leakgauge.attacks.training.layout import from_patches, patches_of
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Layout, Training
from leakgauge.harness.suite.options import Count, Weight
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

BATCH = 128
FOLDS = 4
DRAWS = 4
"""A guess is looked at so often where a perturbation, a reduction or the channel draws at random."""
SAME = 1e-3
FEW = 8
"""Images by which it is found out whether another transmission of them is another one."""
PENALTIES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class Draft(NamedTuple):
    """Where a cascade stands: patches (B, N, 3 h w), and the tokens (B, N + P, D) that the edge makes of them."""

    patches: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Stage:
    """One step: the map, and what it gained on images left out of its fit, in dB."""

    step: LinearMap
    gain_db: float


class Cascade(Attack):
    """Supervised descent through the edge.

    The first guess is a ridge regression from each token and its surroundings to the pixels of its patch. Every stage
    then pushes the guess through the same edge, as whoever may observe its own images can, takes what it sees less what
    was seen of the target, and maps that difference to the error in pixels. Every map is solved in closed form on the
    attacker's images; there is no learning rate, no seed and no plateau, and a stage that adds less than ``gain_db`` on
    images left out of the fit ends it.

    The principle is Xiong and De la Torre's (Supervised Descent Method, CVPR 2013), with token differences in place of
    image features; ours for tokens.

    Images are left out of each other's fits fold by fold, whole clusters at a time, so that a guess about an image of
    the attacker's is as good as one about the target. A step is taken back for an image of which it explains the
    observation worse; no target has a part in that.

    Args:
        stages: Most stages after the first guess.
        gain_db: Least gain, in dB of PSNR on left-out images, for which a stage is kept.
    """

    name = "cascade"
    training: ClassVar[Training] = "closed_form"
    layout: ClassVar[Layout] = "needs order"

    def __init__(self, stages: Count = 8, gain_db: Weight = 0.05) -> None:
        self._most, self._gain_db = stages, gain_db

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Solves stage after stage on the attacker's images."""
        self._descend(view, auxiliary, view.observe(auxiliary), rng)
        return None

    def _descend(self, view: AttackerView, images: ImageSet, target: Observation, rng: Streams) -> None:
        """Solves the stages on images (B) of which ``target`` was observed."""
        self._view, self._grid, self._shape = view, view.grid, view.image_shape
        few = images.select(range(min(len(images), FEW)))
        self._scaling = Scaling.of(target)
        seen, patches = self._laid(target), view.grid[0] * view.grid[1]
        known = self._of_own(view.branch(), few, 0)
        self._draws = 1 if torch.allclose(self._shown(few, 1), known, atol=SAME) else DRAWS
        # Patches of one token look alike to it; what was guessed of each tells them apart.
        self._shares = bool((target.lengths < target.prefix + patches).any())
        truth = patches_of(images.images(), view.grid).to(view.device)
        folds = _folds(images, rng).to(view.device)
        self._stages = list[Stage]()
        self._first, first = self._solved(lambda rows: context_of(seen[rows], self._grid), truth, folds)
        guess = self._looked_at(first)
        for number in range(self._most):
            tell_step(number, self._most)
            step, change = self._solved(partial(self._looks, guess, seen), truth - guess.patches, folds)
            after = self._moved(guess, change, seen)
            gain = float((psnr_db(after.patches, truth) - psnr_db(guess.patches, truth)).mean())
            if gain < self._gain_db:
                break
            self._stages.append(Stage(step, gain))
            guess = after

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Makes the first guess and takes every step."""
        parts, every = [], slice(None)
        for rows in torch.split(torch.arange(len(observations)), BATCH):
            seen = self._laid(observations.select(rows))
            guess = self._looked_at(self._first(context_of(seen, self._grid)))
            for stage in self._stages:
                guess = self._moved(guess, stage.step(self._looks(guess, seen, every)), seen)
            parts.append(from_patches(guess.patches, self._grid, *self._shape[1:]).clamp(0, 1))
        return torch.cat(parts).cpu()

    def _laid(self, observations: Observation) -> Tensor:
        """Lays what was observed, (B, N + P, D')."""
        return laid(observations, self._scaling).to(self._view.device)

    def _of_own(self, view: AttackerView, images: ImageSet, draw: int) -> Tensor:
        """Lays what the edge makes of the attacker's own pictures, (B, N + P, D')."""
        return self._laid(view.observe(images, draw))

    def _solved(self, features: Callable[[slice], Features], wanted: Tensor, folds: Tensor) -> tuple[LinearMap, Tensor]:
        """Fits a map from the features of rows of images to what is wanted (B, N, P).

        Returns:
            The map, and (B, N, P) what maps that were fitted without an image's fold give for it.
        """
        ridge = FoldedRidge(int(folds.max()) + 1, PENALTIES)
        for rows in _batches(len(wanted)):
            ridge.add(features(rows), wanted[rows], folds[rows])
        whole, of_the_rest = ridge.solve()
        given = torch.empty_like(wanted)
        for rows in _batches(len(wanted)):
            looked = features(rows)
            for fold, one in enumerate(of_the_rest):
                own = folds[rows] == fold
                given[rows][own] = one(looked.select(own))
        return whole, given

    def _looks(self, guess: Draft, seen: Tensor, rows: slice) -> Features:
        """Returns what a step looks at: what differs, and where patches share tokens the guess itself."""
        differs = context_of(seen[rows] - guess.seen[rows], self._grid)
        if not self._shares:
            return differs
        return Features(torch.cat([differs.local, guess.patches[rows] - 0.5], dim=2), differs.whole)

    def _looked_at(self, patches: Tensor) -> Draft:
        """Returns a guess as a picture of 8 bits, and what the edge makes of it."""
        images = from_patches(patches, self._grid, *self._shape[1:]).clamp(0, 1)
        pixels = (images * 255).round().to(torch.uint8).cpu()
        shown = [self._shown(ImageSet.from_pixels(pixels[rows]), self._draws) for rows in _batches(len(pixels))]
        return Draft(patches_of(pixels.float() / 255.0, self._grid).to(self._view.device), torch.cat(shown))

    def _shown(self, images: ImageSet, draws: int) -> Tensor:
        """Returns the tokens of pictures that are sent so many times, each time under another name: their mean."""
        # A branch: nobody asks about these pictures again.
        view, whole = self._view.branch(), torch.zeros(())
        for draw in range(draws):
            named = ImageSet(images.pixels, tuple(f"{name}/{draw}" for name in images.ids))
            whole = whole + self._of_own(view, named, draw)
        return whole / draws

    def _moved(self, guess: Draft, change: Tensor, seen: Tensor) -> Draft:
        """Takes a step; images of which it explains the observation worse stay where they are."""
        after = self._looked_at(guess.patches + change)
        worse = (_misfit(after.seen, seen) > _misfit(guess.seen, seen))[:, None, None]
        return Draft(torch.where(worse, guess.patches, after.patches), torch.where(worse, guess.seen, after.seen))


def psnr_db(patches: Tensor, truth: Tensor) -> Tensor:
    """Returns (B,) PSNR of patches (B, N, P) in [0, 1]."""
    error = (patches.clamp(0, 1) - truth).square().mean(dim=(1, 2)).clamp_min(1e-10)
    return -10.0 * error.log10()


def _misfit(tokens: Tensor, seen: Tensor) -> Tensor:
    return (tokens - seen).square().mean(dim=(1, 2))


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def _folds(images: ImageSet, rng: Streams) -> Tensor:
    """Returns (B,) the fold of each image; clusters of dependent images stay together."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    names, index = torch.unique(groups, return_inverse=True)
    order = torch.randperm(len(names), generator=rng.child("folds").torch())
    return (order % min(FOLDS, len(names)))[index]
