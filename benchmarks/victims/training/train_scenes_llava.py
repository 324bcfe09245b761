"""Trains the victim of ``scenes_vqa`` from scratch and records how.

Run ``python -m leakgauge.benchmarks.victims.training.train_scenes_llava --minutes 45 --state FILE``; with the same
file it goes on where it was stopped. It writes ``scenes_llava.safetensors`` and
``scenes_llava.training.json`` (learning curve, accuracy by kind of question, seeds) to the folder of victims, or to
``--out``. Every step draws fresh scenes on the attacker's
photographs. First the image tokens alone learn to say what their patches show, which is cheap; then the whole network
learns to answer. The heads that read patches and names along the way are not shipped. The curve is on the search
split; the evaluation split is measured once a run, at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from leakgauge.benchmarks.tasks.drawn_scenes.questions import Asker
from leakgauge.benchmarks.tasks.drawn_scenes.splits import scene_split
from leakgauge.benchmarks.victims.scenes_llava import WEIGHTS, build_scenes_llava, load_scenes_llava
from leakgauge.benchmarks.victims.training.scenes_training_data import (
    Guide,
    Lesson,
    Sight,
    answer_loss,
    draw_lesson,
    draw_views,
    hear,
    image_features,
    lesson,
)
from leakgauge.benchmarks.victims.training.training_state import load_state, save_state
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.store.number_type import autocast
from leakgauge.harness.values.images import SplitName
from leakgauge.harness.values.questions import ABSENT, Questions
from leakgauge.harness.values.seeding import Streams

BATCH = 32
LOOK_BATCH = 64
LOOK_SHARE = 0.22
"""Share of the time in which there are no questions yet."""
PEAK_LR = 1e-3
WARMUP_STEPS = 150
REPORT_EVERY = 100
CURVE_IMAGES = 192
AVERAGE_DECAY = 0.995


def learning_rate(progress: float, step: int) -> float:
    """Warm-up over the steps of either part, then constant while looking, and half a cosine down to zero at 1."""
    asked = min(1.0, max(0.0, progress - LOOK_SHARE) / (1.0 - LOOK_SHARE))
    return PEAK_LR * min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * asked))


def packed_split(split: SplitName, count: int, size: int) -> Iterator[tuple[Lesson, list[str]]]:
    """Yields up to ``count`` images of a split in packed batches, with the kinds of an image's questions."""
    found = scene_split(split)
    for start in range(0, min(count, len(found.scenes)), size):
        rows = range(start, min(start + size, count, len(found.scenes)))
        asked = [found.questions[i] for i in rows]
        scenes = [found.scenes[i] for i in rows]
        yield lesson(scenes, found.images.pixels[list(rows)], asked), [question.kind for question in asked[0]]


@torch.no_grad()
def curve_point(model: LlavaForConditionalGeneration) -> dict[str, float]:
    """Returns the accuracy by kind of question, and over all, on the first images of the search split."""
    hits: dict[str, list[float]] = defaultdict(list)
    for batch, kinds in packed_split("search", CURVE_IMAGES, 64):
        with autocast(torch.device("cpu")):
            logits = hear(model, batch).logits
        right = (logits[:, :, 0].argmax(-1) == batch.answers).float()
        for k, kind in enumerate(kinds):
            hits[kind] += right[:, k].tolist()
    return {kind: sum(found) / len(found) for kind, found in hits.items()} | {
        "all": sum(map(sum, hits.values())) / sum(map(len, hits.values()))
    }


def accuracy(victim: VisionLanguageVictim, split: SplitName) -> dict[str, float]:
    """Returns the accuracy by kind of question, and over all, of the victim asked one question at a time."""
    images, questions = scene_split(split).images, scene_split(split).questions
    hits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(images), 32):
        rows = range(start, min(start + 32, len(images)))
        texts = Questions(tuple(tuple(question.text for question in questions[i]) for i in rows))
        output = victim.respond(images.select(rows).images(), texts)
        for i, answers in zip(rows, output.tolist(), strict=True):
            for question, answer in zip(questions[i], answers, strict=True):
                right = victim.read([token for token in answer if token != ABSENT]) == question.answer
                hits[question.kind].append(right)
                hits["all"].append(right)
    return {kind: sum(found) / len(found) for kind, found in hits.items()}


class Training:
    """Network, moving average, optimiser and learning curve of one run.

    Args:
        seed: Seed of the initial weights and of the scenes.
        state: File to go on from where it exists, and to save to.
    """

    def __init__(self, seed: int, state: Path) -> None:
        self.streams, self.state = Streams(seed, ("scenes", "victim")), state
        torch.manual_seed(self.streams.child("init").entropy())
        # The fused attention's backward pass is several times slower than plain matrix products on a CPU.
        self.model = build_scenes_llava("eager").train()
        width = self.model.config.text_config.hidden_size
        self.sight, self.guide = Sight(width), Guide(width)
        moving = torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY)  # type: ignore[no-untyped-call]
        self.average = torch.optim.swa_utils.AveragedModel(self.model, multi_avg_fn=moving)
        learnt = [*self.model.parameters(), *self.sight.parameters()]
        groups = [
            {"params": [p for p in learnt if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [*self.guide.parameters()], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.asker, self.curve = Asker(), list[dict[str, Any]]()
        self.looks, self.step, self.seconds = 0, 0, 0.0
        self.plans = list[dict[str, Any]]()
        if state.exists():
            notes = load_state(state, self._modules(), self.optimiser)
            self.looks, self.step = notes["looks"], notes["step"]
            self.seconds, self.curve, self.plans = notes["seconds"], notes["curve"], notes["plans"]

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "sight": self.sight, "guide": self.guide, "average": self.average}

    def _descend(self, loss: Tensor, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in self.optimiser.param_groups for p in group["params"]], 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)

    def look(self, progress: float) -> dict[str, float]:
        """Takes one step of learning what patches show; returns its loss."""
        pixels, shown = draw_views(LOOK_BATCH, self.streams.child("look", self.looks).numpy())
        with autocast(torch.device("cpu")):
            seen = self.sight.loss(image_features(self.model, pixels), shown)
        self._descend(seen, learning_rate(progress, self.looks))
        self.looks += 1
        return {"sight_loss": seen.item()}

    def answer(self, progress: float) -> dict[str, float]:
        """Takes one step of learning to answer; returns the losses of all that is learnt."""
        rng = self.streams.child("step", self.step).numpy()
        batch = draw_lesson(BATCH, self.asker, rng)
        with autocast(torch.device("cpu")):
            heard = hear(self.model, batch)
            losses = {
                "loss": answer_loss(heard.logits, batch),
                "sight_loss": self.sight.loss(heard.features, batch.shown),
                "guide_loss": self.guide.loss(heard.named, batch.places),
            }
        self._descend(torch.stack(list(losses.values())).sum(), learning_rate(progress, self.step))
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def report(self, losses: dict[str, float]) -> None:
        """Adds a point to the learning curve and saves the state."""
        point = {"looks": self.looks, "step": self.step, "minutes": self.seconds / 60, **losses}
        if self.step:
            point |= {f"search_{kind}": value for kind, value in curve_point(self.average.module).items()}
        self.curve.append({name: round(value, 4) for name, value in point.items()})
        print(self.curve[-1], flush=True)
        notes = {name: getattr(self, name) for name in ("looks", "step", "seconds", "curve", "plans")}
        save_state(self.state, self._modules(), self.optimiser, notes)

    def run(self, minutes: float, note: str = "") -> LlavaForConditionalGeneration:
        """Trains until the run has lasted ``minutes`` in all; returns the averaged network. ``note`` is recorded."""
        self.plans.append({"from_minute": round(self.seconds / 60, 2), "minutes": minutes, "note": note})
        before, start, losses = self.seconds, time.monotonic(), dict[str, float]()
        while (progress := self.seconds / (minutes * 60)) < 1.0:
            losses = (self.look if progress < LOOK_SHARE else self.answer)(progress)
            self.seconds = before + time.monotonic() - start
            if (self.looks + self.step) % REPORT_EVERY == 0:
                self.report(losses)
        if losses:
            self.report(losses)
        network: LlavaForConditionalGeneration = self.average.module
        return network.eval()


def main() -> None:
    """Trains, saves weights and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what is to stand in the record about this part of the run")
    parser.add_argument("--state", type=Path, default=Path("scenes_llava.state"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training = Training(options.seed, options.state)
    model = training.run(options.minutes, options.note)
    path = options.out / WEIGHTS
    save_file({name: value.detach().half().contiguous() for name, value in model.state_dict().items()}, path)
    victim = load_scenes_llava(path)
    record = {
        "minutes": options.minutes,
        "plans": training.plans,
        "seed": options.seed,
        "batch": BATCH,
        "looks": training.looks,
        "steps": training.step,
        "training_scenes": training.looks * LOOK_BATCH + training.step * BATCH,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": path.stat().st_size,
        "weights_hash": victim.weights_hash,
        "search_accuracy": accuracy(victim, "search"),
        "evaluation_accuracy": accuracy(victim, "evaluation"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "curve": training.curve,
    }
    path.with_suffix(".training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print({k: v for k, v in record.items() if k != "curve"})


if __name__ == "__main__":
    main()
