"""What lies between the tower and the language model: which tokens are sent, and how those that arrive are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.backbones.hf_llava import HfLlava, joined_tiles, tokens_of_images
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.values.tokens import TokenBatch


class Connector:
    """The way from the tower's last block to the language model; the payload is written somewhere along it.

        blocks -> class token off -> projector -> tiles joined -> laid out in rows -> language model
              |                  |           |
              cut < depth        cut = depth projects_on_edge

    Args:
        llava: The adapter of the victim.
        victim: The victim.
        device: Where it is.
        whole: Whether all blocks are on the edge.
        projects_on_edge: Whether the projector is there as well.

    Attributes:
        tiles: Images that the tower runs for one image of the task.
    """

    def __init__(
        self, llava: HfLlava, victim: VisionLanguageVictim, device: torch.device, whole: bool, projects_on_edge: bool
    ) -> None:
        self._llava, self._victim, self._device = llava, victim, device
        self._whole, self.projects_on_edge = whole, projects_on_edge
        self.tiles = self._count_tiles()
        self._patches = self.tiles * llava.grid[0] * llava.grid[1]
        self._whole_count: int | None = None

    def _count_tiles(self) -> int:
        if not self._llava.tiled:
            return 1
        return int(self._victim.vision_inputs(self._blank())["pixel_values"].shape[1])

    def _blank(self) -> Tensor:
        """Returns one image without content, (1, 3, H, W), for what depends on its size alone."""
        return torch.zeros(1, 3, self._victim.image_px, self._victim.image_px, device=self._device)

    def sent(self, batch: TokenBatch) -> TokenBatch:
        """Makes of the tokens after the edge blocks those that are sent."""
        if not self._whole:
            return batch
        batch = self._llava.select_tokens(batch)
        if self.projects_on_edge:
            batch = self._llava.project_tokens(batch)
        return batch if self.tiles == 1 else joined_tiles(batch, self.tiles)

    def read(self, batch: TokenBatch) -> list[Tensor]:
        """Makes of received tokens, after all blocks, what the language model gets of each image: (n, its width)."""
        if not self._whole:
            batch = self._llava.select_tokens(batch)
        if not self.projects_on_edge:
            batch = self._llava.project_tokens(batch)
        return [self._laid_out(tokens) for tokens in tokens_of_images(batch)]

    def unreduced(self, batch: TokenBatch) -> Tensor:
        """Makes of all tokens of one image, after all blocks, what the language model gets of it: (n, its width)."""
        batch = self._llava.project_tokens(self._llava.select_tokens(batch))
        return self._laid_out((batch if self.tiles == 1 else joined_tiles(batch, self.tiles)).tokens)

    def _laid_out(self, tokens: Tensor) -> Tensor:
        """Lays an image's tokens out for the language model, which of LLaVA-NeXT wants ends of rows.

        Where all tokens of all tiles arrived, the model's own method does it. Where some were merged there are no rows:
        one end of row follows them all, as the model does for an image of one tile (assumed).
        """
        if not self._llava.tiled:
            return tokens
        inner: Any = self._victim.model.model
        if len(tokens) != self._patches:
            return torch.cat([tokens, inner.image_newline[None].to(tokens)])
        side = self._victim.image_px
        strategy = self._victim.model.config.vision_feature_select_strategy  # type: ignore[union-attr]
        packed, _ = inner.pack_image_features(
            [tokens.view(self.tiles, -1, tokens.shape[1])],
            torch.tensor([[side, side]]),
            vision_feature_select_strategy=strategy,
            image_newline=inner.image_newline,
        )
        whole: Tensor = packed[0]
        return whole

    def patches_of(self, received: int) -> int:
        """Returns how many of so many received tokens of an image go through the projector."""
        return received - (0 if self._whole else self._llava.prefix * self._llava.drops_class_token)

    def laid_out_count(self, tokens: int) -> int:
        """Returns how many tokens the language model gets of so many that went through the projector."""
        if not self._llava.tiled:
            return tokens
        if tokens != self._patches:
            return tokens + 1
        if self._whole_count is None:
            self._whole_count = self._victim.image_tokens(self._blank())
        return self._whole_count

    def project_blanks(self, count: int) -> TokenBatch:
        """Runs the projector on ``count`` made-up tokens of one image, whose cost is theirs."""
        tokens = torch.zeros(count, self._llava.width, device=self._device, dtype=self._llava.dtype)
        made_up = TokenBatch(
            tokens, tokens.new_tensor([count]).long(), tokens[:, 0].long(), tokens.new_zeros(1, 0).long(), 0
        )
        return self._llava.project_tokens(made_up)
