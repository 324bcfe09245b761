"""Query-free attack: a substitute edge is fitted to the observed payloads alone, and a decoder learns from that."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss, relu

from leakgauge.attacks.networks.set_network import SetNetwork
from leakgauge.attacks.networks.substitute import SubstituteEncoder, TokenJudge, described, merged_like, mmd
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import Schedule, hold_out, mean_psnr_db, predict, to_device
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.errors import PluginError
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.system.standing import tell_step
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve, convergence_failure
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

COMPARED_TOKENS = 512
CURVE_POINTS = 12


def without_prefix(observations: Observation) -> Observation:
    """Returns the observations without their protected tokens, where their place is known."""
    if not observations.prefix:
        return observations
    batch = observations.as_batch()
    rank = torch.arange(len(batch.tokens), device=batch.lengths.device) - batch.offsets[batch.image_index]
    patches = rank >= observations.prefix
    return Observation(
        tokens=batch.tokens[patches],
        lengths=batch.lengths - observations.prefix,
        prefix=0,
        grid=observations.grid,
        sizes=None if observations.sizes is None else observations.sizes[patches],
        ordered=observations.ordered,
    )


class Surrogate(Attack):
    """Trains a substitute encoder until its tokens look like the observed ones, and a set decoder on its tokens.

    After FORA (Xu et al., CVPR 2024: substitute client, discriminator and MMD on the features of public data) and
    UnSplit (Erdogan et al., WPES 2022). The networks, the guess at the reduction and all weights are ours (assumed).
    The lower end of knowledge: no victim, not a single transmission of the attacker's own; only public images and the
    payloads under attack. Nothing pairs a token with a patch beyond its rank, so expect little.

    All training is done in ``reconstruct``, on all observations together, because that is what this attacker has:
    here, unlike elsewhere, an image's result depends on what else was overheard.

    Args:
        steps: Steps of the encoder and the decoder, one step of the judge each.
        batch_size: Images a step.
        width: Channels of encoder, judge and decoder.
        layers: Layers of encoder and decoder.
        peak_lr: Peak learning rate.
        adversarial: Weight of the judge.
        discrepancy: Weight of the MMD.
    """

    name = "surrogate"
    training = "search"
    layout = "needs order"
    knowledge = Knowledge(victim="none")

    def __init__(
        self,
        steps: Count = 1000,
        batch_size: Count = 32,
        width: Annotated[int, Field(ge=4, multiple_of=4)] = 64,
        layers: Count = 2,
        peak_lr: Positive = 2e-3,
        adversarial: Weight = 0.02,
        discrepancy: Weight = 1.0,
    ) -> None:
        self._schedule = Schedule(steps, batch_size, peak_lr, warmup_steps=min(50, steps))
        self._width, self._layers = width, layers
        self._adversarial, self._discrepancy = adversarial, discrepancy

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Keeps the auxiliary images; the edge is not asked."""
        if not len(auxiliary):
            raise PluginError("there are no auxiliary images", where=f"attack {self.name!r}")
        self._images, self._shape, self._grid, self._device = auxiliary, view.image_shape, view.grid, view.device
        return None

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Trains on the observations as they are, and decodes them."""
        seen = to_device(without_prefix(observations), self._device)
        training = _Training(self, seen, rng)
        curve = training.run()
        self.caveat = convergence_failure(curve, self.least_steps)
        return predict(training.decoder, seen, self._device)


class _Training:
    """One training of substitute, judge and decoder against one set of observations."""

    def __init__(self, attack: Surrogate, seen: Observation, rng: Streams) -> None:
        self._seen, self._rng = seen, rng
        self._images, self._schedule = attack._images, attack._schedule
        self._adversarial, self._discrepancy = attack._adversarial, attack._discrepancy
        self._mean, self._std = token_statistics(seen)
        values, width, device = len(self._mean), attack._width, attack._device
        self._real = described(seen, (seen.tokens - self._mean) / self._std)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            self._encoder = SubstituteEncoder(attack._shape, attack._grid, values, width=width, layers=attack._layers)
            self._judge = TokenJudge(self._real.shape[1], 2 * width)
            # The decoder lives where tokens are as observed, so that it fits the observations as they come.
            self.decoder = SetNetwork(
                self._mean.cpu(),
                self._std.cpu(),
                attack._shape,
                attack._grid,
                width=width,
                layers=attack._layers,
                heads=4,
            )
        for network in (self._encoder, self._judge, self.decoder):
            network.to(device)
        rate = self._schedule.peak_lr
        self._makers = torch.optim.AdamW([*self._encoder.parameters(), *self.decoder.parameters()], lr=rate)
        self._judging = torch.optim.AdamW(self._judge.parameters(), lr=rate, betas=(0.5, 0.99))
        self._draws = rng.child("draws").torch()

    def _imitate(self, images: Tensor, draws: torch.Generator) -> tuple[Observation, Tensor]:
        """Returns what the substitute would have sent of images (B, 3, H, W), and its described tokens."""
        tokens = self._encoder(images)
        chosen = torch.randint(len(self._seen), (len(images),), generator=draws)
        lengths = self._seen.lengths[chosen.to(tokens.device)].clamp(1, tokens.shape[1])
        packed, sizes = merged_like(tokens, lengths, draws)
        fake = Observation(
            tokens=packed * self._std + self._mean,
            lengths=lengths,
            prefix=0,
            grid=self._seen.grid,
            sizes=None if self._seen.sizes is None else sizes,
            ordered=self._seen.ordered,
        )
        return fake, described(fake, packed)

    def _some(self, tokens: Tensor) -> Tensor:
        """Returns at most ``COMPARED_TOKENS`` rows, drawn with replacement."""
        rows = torch.randint(len(tokens), (min(COMPARED_TOKENS, len(tokens)),), generator=self._draws)
        return tokens[rows.to(tokens.device)]

    def run(self) -> LearningCurve:
        """Trains; the curve is the PSNR of held-out auxiliary images through substitute and decoder."""
        schedule, split = self._schedule, hold_out(self._images, self._rng)
        curve, every = LearningCurve(schedule.steps), max(1, schedule.steps // CURVE_POINTS)
        device = self._real.device
        for step in range(schedule.steps):
            tell_step(step, schedule.steps)
            rows = split.train[torch.randint(len(split.train), (schedule.batch_size,), generator=self._draws)]
            images = self._images.pixels[rows].to(device).float() / 255.0
            for group in (*self._makers.param_groups, *self._judging.param_groups):
                group["lr"] = schedule.rate(step)
            fake, columns = self._imitate(images, self._draws)
            real, imitated = self._some(self._real), self._some(columns)
            scores = relu(1.0 - self._judge(real)).mean() + relu(1.0 + self._judge(imitated.detach())).mean()
            self._judging.zero_grad(set_to_none=True)
            scores.backward()  # type: ignore[no-untyped-call]
            self._judging.step()
            value = mse_loss(self.decoder(fake), images)
            value = value - self._adversarial * self._judge(imitated).mean()
            value = value + self._discrepancy * mmd(real, imitated)
            self._makers.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_([p for g in self._makers.param_groups for p in g["params"]], 1.0)
            self._makers.step()
            if (step + 1) % every == 0 or step + 1 == schedule.steps:
                curve.add(step + 1, value.item(), self._heldout_psnr_db(self._images.select(split.heldout)))
        return curve

    @torch.no_grad()
    def _heldout_psnr_db(self, images: ImageSet) -> float:
        """Returns the mean PSNR in dB of auxiliary images through substitute and decoder; every call merges alike."""
        pixels = images.images().to(self._real.device)
        fake, _ = self._imitate(pixels, self._rng.child("heldout").torch())
        self.decoder.eval()
        rebuilt = self.decoder(fake).clamp(0, 1)
        self.decoder.train()
        return mean_psnr_db(rebuilt, pixels)
