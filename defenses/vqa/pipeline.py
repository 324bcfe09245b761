"""The split pipeline of a vision-language model: tower, payload, channel, projector, language model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.backbones.exactness import check_mode, check_same, noise_image, once
from leakgauge.defenses.backbones.hf_llava import HfLlava
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.edge import Edge
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.ragged.server import SplitServer
from leakgauge.defenses.ragged.split_victim import SplitVictim
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.defenses.vqa.connector import Connector
from leakgauge.defenses.vqa.fastv import FastV, FastVOptions
from leakgauge.defenses.vqa.language_half import LanguageHalf
from leakgauge.defenses.vqa.server import LanguageServer
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import ConfigError, suggest
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions
from leakgauge.harness.values.seeding import Streams

_WHERE = "defense 'vqa_pipeline'"
_OWN = ("projector_on_edge", "fastv")


class VqaPipeline(SplitPipeline):
    """The defense of arXiv 2509.09955 around LLaVA: merging in the image tower, an answer to every question.

    The payload of an image is sent once, however many questions are asked about it. Beside what ``split_pipeline`` can
    do it tells what answering costs its server.

    Args:
        victim: The victim.
        device: Where to compute.
        projector_on_edge: Whether the projector runs before the payload is written, so that it carries tokens of the
            language model's width; it needs all blocks on the edge.
        fastv: ``{layer, keep}`` drops image tokens in the language model as well (``leakgauge.defenses.vqa.fastv``).
        options: As for ``split_pipeline``. ``cut`` counts the blocks before the layer that the language model reads.
    """

    name = "vqa_pipeline"
    _reducing = SplitPipeline._reducing | {"fastv"}
    server: LanguageServer

    def __init__(
        self,
        victim: Victim,
        device: torch.device,
        projector_on_edge: bool = False,
        fastv: FastVOptions | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(victim, VisionLanguageVictim):
            raise ConfigError(
                "the victim answers no questions", where=_WHERE, hint="take a task with questions, or split_pipeline"
            )
        known = inspect.signature(SplitPipeline).parameters
        for key in options:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}", where=_WHERE, hint=suggest(key, [*known, *_OWN]))
        self._asked, self.projects_on_edge = victim, projector_on_edge
        self._fastv = None if fastv is None else FastV(**fastv)
        super().__init__(victim, device, **options)
        self._options |= {"projector_on_edge": projector_on_edge, "fastv": fastv}

    def _halves(self, split: SplitVictim, edge: Callable[..., Edge]) -> tuple[Edge, SplitServer]:
        """Builds edge and server with what lies between tower and language model."""
        llava, victim = split.backbone, self._asked
        if not isinstance(llava, HfLlava):
            raise ConfigError(f"{type(victim.model).__name__} is no LLaVA", where=_WHERE)
        whole = split.cut == llava.depth
        if (self.projects_on_edge or llava.tiled) and not whole:
            what = "the projector on the edge" if self.projects_on_edge else "a victim that cuts images into tiles"
            raise ConfigError(f"{what} needs all {llava.depth} blocks there", where=_WHERE, hint="leave out `cut`")
        connector = Connector(llava, victim, split.device, whole, self.projects_on_edge)
        server = LanguageServer(split, victim, connector, self._fastv)
        once(victim.model, "first answer token", partial(_compare, victim, llava, connector, split.device))
        return edge(tiles=connector.tiles, outgoing=connector.sent), server

    def server_flops(self, transmission: Transmission, questions: Any, output: Tensor) -> dict[str, Tensor] | None:
        """Returns GFLOP (B,) of the server by part; prefill and decoding for one question, the mean of an image's."""
        return self.server.parts(transmission, questions, output)

    def flops(
        self, images: ImageSet, transmission: Transmission, questions: Any = None, output: Tensor | None = None
    ) -> Flops | None:
        """Returns what measuring each image alone would; None where counts do not decide."""
        if not self.edge.counts_by_tokens or self.link.may_lose or self.link.learned:
            return None
        with torch.no_grad(), self._split.autocast():
            edge = self.edge.flops(images, transmission)
        return self.server.flops(edge, transmission, questions, output)


@torch.no_grad()
def _compare(victim: VisionLanguageVictim, llava: HfLlava, connector: Connector, device: torch.device) -> None:
    """Compares image tokens, and logits of an answer's first token, with those of the model's own forward."""
    questions = Questions((("What is it?",),))
    network: Any = victim.model
    check_mode(network)
    side = victim.image_px
    image = noise_image(side, side, device)
    with torch.autocast(device.type, enabled=False):
        inputs = victim.vision_inputs(image)
        own = network.get_image_features(**inputs).pooler_output[0]
        batch = llava.embed(victim.normalise(image).to(network.dtype))
        names = tuple(map(str, range(len(batch))))
        batch, _ = run_edge(llava, batch, names, NoReduction(), Streams(0), cut=llava.depth, proportional=False)
        tokens = connector.unreduced(batch)
        check_same(victim, tokens, own, lambda: "tokens of the image tower or projector differ")
        prompts = victim.padded_prompts(questions, len(own), device)
        logits = network(**inputs, **prompts).logits[:, -1].float().cpu()
        found = LanguageHalf(victim).first_logits([tokens], questions)
    check_same(victim, found, logits, lambda: "image tokens agree, logits of the language model differ")
