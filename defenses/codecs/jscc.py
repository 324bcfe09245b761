"""Learned joint source-channel coding: tokens to complex symbols and back, without bytes between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from leakgauge.defenses.codecs.jscc_coder import Coder, Layers
from leakgauge.harness.contracts.link import SymbolCodec
from leakgauge.harness.errors import ConfigError, PayloadError, PluginError
from leakgauge.harness.suite.options import Decibel
from leakgauge.harness.values.seeding import Streams

_RUN, _RUNS = 32, 16
"""Rows of a run, and runs of a training batch. Neighbouring rows are mostly tokens of one image: runs stand for it."""
_CHECKS = 10


class JsccCodec(SymbolCodec):
    """A small learned encoder and decoder for tokens on an analog channel.

    Everything here is assumed: arXiv 2509.09955 trains a codec of its own and publishes no design. Tokens are
    standardised and projected on their main directions (PCA), with amplitudes of the optimal linear code at high SNR
    (power as the square root of the variance: Lee and Petersen, Optimal linear coding for vector channels, 1976); the
    receiver takes the linear estimate of least squared error (Wiener). A perceptron with one hidden layer at either end
    corrects that; both start from zero and are trained together through additive white Gaussian noise with AdamW. The
    loss is the squared error of standardised values over the root of the linear code's mean squared error at the same
    noise: between plain errors, of which the noisiest rows make up nearly all, and relative ones, which neglect them.
    Of the states on the way, the linear code included, the best on calibration tokens held out of training is kept.

    Below the training range the decoder's correction is off, the linear estimate stands alone: amid more noise than it
    has seen, the correction does more harm than sending nothing (8 uses, -20 dB: error 3.8, the linear estimate 1.0).
    Above the range it is told the highest SNR that it knows, which serves at any SNR (measured against the linear
    estimate alone: 12 % less error with 8 uses, 4 % with 32).

    The decoder is told the noise, the encoder is not: best is meant over the whole training range. With few symbols,
    where the correction gains most at the range's high end, the linear code has the smaller error at its low end.
    A small error is not all that counts: on task ``photos`` at 0 dB, token values sent as they are (192 wide, 96 uses)
    serve the victim better than tokens that come back from here with a third of their error (measured, cut 3).

    The channel normalises power per image, and training per run of 32 neighbouring rows: the noise follows the power of
    the image's own symbols, although the decoder is told its ratio alone.

    Args:
        uses_per_token: Complex symbols a token, 1 to 4096; at most half the tokens' width.
        snr_low_db: Lowest Es/N0 in training, in dB; each row of a batch gets one drawn uniformly.
        snr_high_db: Highest.
        hidden: Width of the hidden layers, 1 to 4096.
        steps: Training steps of 16 runs, 0 to 100000; 0 gives the linear codec.
    """

    name = "jscc"

    def __init__(
        self,
        uses_per_token: Annotated[int, Field(ge=1, le=4096)] = 32,
        snr_low_db: Decibel = 0.0,
        snr_high_db: Decibel = 20.0,
        hidden: Annotated[int, Field(ge=1, le=4096)] = 256,
        steps: Annotated[int, Field(ge=0, le=100_000)] = 600,
    ) -> None:
        self.uses_per_token = uses_per_token
        self._low, self._high = snr_low_db, snr_high_db
        if self._low > self._high:
            raise ConfigError(f"snr_low_db = {self._low:g} is above snr_high_db = {self._high:g}", hint="swap the two")
        self._hidden = hidden
        self._steps = steps
        self._coder: Coder | None = None

    def prepare(self, tokens: Tensor, rng: Streams) -> None:
        """Trains both ends on calibration tokens (n, D); the same tokens and stream give the same codec.

        Seconds on one thread for 15 000 tokens of width 192.

        Raises:
            ConfigError: There are too few tokens or channels for ``uses_per_token``.
            PayloadError: A value is not finite.
        """
        tokens = tokens.detach().to("cpu", torch.float32)
        _check_finite(tokens)
        count, width = tokens.shape
        if 2 * self.uses_per_token > min(width, count - 1):
            raise ConfigError(
                f"uses_per_token = {self.uses_per_token} is too much for {count} tokens of width {width}",
                where="codec 'jscc'",
                hint=f"give at most {max(0, min(width, count - 1)) // 2}, or more calibration images",
            )
        dice = rng.child(self.name).torch()
        coder = self._linear(tokens, dice)
        if self._steps:
            with torch.enable_grad():
                coder = self._trained(coder, coder.standardised(tokens), dice)
        self._coder = coder.double()

    def to_symbols(self, tokens: Tensor) -> Tensor:
        """Maps tokens (T, D) to float32 symbol values (T, 2 * uses_per_token) of unit power over calibration tokens.

        Computed in float64 and rounded, so that a token's symbols do not depend on how many are mapped together.

        Raises:
            PluginError: ``prepare`` was not called.
            PayloadError: The tokens have another width than the calibration tokens, or a value is not finite.
        """
        coder = self._prepared()
        if tokens.dim() != 2 or tokens.shape[1] != len(coder.mean):
            raise PayloadError(
                f"tokens of shape {tuple(tokens.shape)}, but the codec was trained on width {len(coder.mean)}",
                where="codec 'jscc'",
                hint="calibrate on tokens of the same victim",
            )
        _check_finite(tokens)
        with torch.no_grad():
            values = coder.symbols(coder.standardised(tokens.cpu().double())) * coder.scale
        return values.float().to(tokens.device)

    def from_symbols(self, values: Tensor, noise_to_signal: Tensor) -> Tensor:
        """Maps received values (T, 2 * uses_per_token) to float32 tokens (T, D).

        Args:
            values: Received, in the scale of ``to_symbols``.
            noise_to_signal: (T,) power of the noise over the power of the signal, 0 without noise.

        Raises:
            PluginError: ``prepare`` was not called.
            PayloadError: The values have the wrong width, or one is not finite.
        """
        coder = self._prepared()
        if values.dim() != 2 or values.shape[1] != 2 * self.uses_per_token:
            raise PayloadError(
                f"symbol values of shape {tuple(values.shape)}, expected width {2 * self.uses_per_token}",
                where="codec 'jscc'",
                hint="receive with the codec that sent",
            )
        _check_finite(values)
        noise, least, most = noise_to_signal.cpu().double()[:, None], 10 ** (-self._high / 10), 10 ** (-self._low / 10)
        with torch.no_grad():
            received = values.cpu().double()
            estimate = coder.linear_estimate(received, noise)
            correction = coder.correction(received, noise.clamp(least, most))
            # The range's end itself counts as inside, also where its noise was computed with other last bits.
            tokens = estimate + torch.where(noise <= most * (1 + 1e-6), correction, 0.0)
            tokens = tokens * coder.deviation + coder.mean
        return tokens.float().to(values.device)

    def _linear(self, tokens: Tensor, dice: torch.Generator) -> Coder:
        """Returns the linear code, with corrections that answer zero."""
        width, outputs = tokens.shape[1], 2 * self.uses_per_token
        exact = tokens.double()
        mean, deviation = exact.mean(0), exact.std(0)
        deviation = torch.where(deviation > 1e-9 * deviation.max(), deviation, 1.0)
        variance, directions = torch.linalg.eigh(torch.cov(((exact - mean) / deviation).T).reshape(width, width))
        variance, directions = variance.flip(0).clamp_min(0), directions.flip(1)[:, :outputs]
        variance, remainder = variance[:outputs], variance[outputs:].sum()
        # Power as the root of the variance; directions that hold rounding errors alone get none.
        useful = variance > 1e-9 * variance[0]
        power = torch.where(useful, variance.sqrt(), 0.0)
        amplitude = torch.where(useful, variance.clamp_min(1e-30) ** -0.25, 0.0)
        amplitude = amplitude / power.mean().clamp_min(1e-30).sqrt()
        return Coder(
            mean.float(),
            deviation.float(),
            directions.float(),
            variance.float(),
            remainder.float(),
            amplitude.float(),
            encoder=Layers.initial(width, self._hidden, outputs, dice),
            decoder=Layers.initial(outputs + 1, self._hidden, width, dice),
            scale=torch.ones(()),
        )

    def _trained(self, start: Coder, inputs: Tensor, dice: torch.Generator) -> Coder:
        """Trains the corrections on standardised tokens (n, D); the best state on held-out rows, or ``start``."""
        length = min(_RUN, len(inputs))
        runs = inputs[: len(inputs) // length * length].view(-1, length, inputs.shape[1])
        # Blocks of a fiftieth, so that what is held out shows other pictures; every tenth of them.
        held = torch.arange(len(runs)) // max(1, len(runs) // 50) % 10 == 9
        training, validation = runs[~held], runs[held] if bool(held.any()) else runs
        coder = start._replace(
            encoder=Layers(*(x.clone().requires_grad_() for x in start.encoder)),
            decoder=Layers(*(x.clone().requires_grad_() for x in start.decoder)),
        )
        optimiser = torch.optim.AdamW([*coder.encoder, *coder.decoder], lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._steps)
        seen = self._draw(validation, dice)  # the same noise at every check
        best, best_loss = start, float(self._loss(start, validation, *seen))
        batches = self._batches(len(training), dice)
        for step in range(1, self._steps + 1):
            rows = training[next(batches)]
            loss = self._loss(coder, rows, *self._draw(rows, dice))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            if step % max(1, self._steps // _CHECKS) == 0:
                with torch.no_grad():
                    now = coder._replace(scale=coder.unit_scale(training))
                    loss = self._loss(now, validation, *seen, scale=now.scale)
                    if float(loss) < best_loss:
                        best, best_loss = now.double(), float(loss)
        return best

    def _draw(self, inputs: Tensor, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws for runs (R, S, D) the noise to signal ratio (R, S, 1) and unit noise (R, S, 2 * uses_per_token)."""
        rows = inputs.shape[:2]
        snr_db = self._low + (self._high - self._low) * torch.rand(*rows, 1, generator=dice)
        return 10 ** (-snr_db / 10), torch.randn(*rows, 2 * self.uses_per_token, generator=dice)

    @staticmethod
    def _loss(coder: Coder, inputs: Tensor, ratio: Tensor, noise: Tensor, scale: Tensor | None = None) -> Tensor:
        """Returns the weighted squared error of runs (R, S, D), sent at unit mean power if no scale is given."""
        values = coder.symbols(inputs) * (coder.unit_scale(inputs) if scale is None else scale)
        power = values.square().mean(dim=(1, 2), keepdim=True)
        restored = coder.restored(values + noise * (ratio * power).sqrt(), ratio)
        return ((restored - inputs).square() / coder.linear_error(ratio).sqrt()).mean()

    @staticmethod
    def _batches(runs: int, dice: torch.Generator) -> Iterator[Tensor]:
        """Yields numbers of runs, pass after pass in a new order."""
        while True:
            yield from torch.split(torch.randperm(runs, generator=dice), _RUNS)

    def _prepared(self) -> Coder:
        if self._coder is None:
            raise PluginError(
                "it has not been trained", where="codec 'jscc'", hint="call `prepare` with calibration tokens first"
            )
        return self._coder


def _check_finite(tokens: Tensor) -> None:
    """Raises PayloadError where a value is not finite."""
    if not bool(torch.isfinite(tokens).all()):
        raise PayloadError("tokens hold NaN or infinite values", where="codec 'jscc'", hint="check weights and images")
