"""The packed forward against an independent slow reference, and against its own batch mates, on whole models."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data
from slow_reference import reference

from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.ragged.calibration import calibrate_thresholds
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.threshold import ThresholdMerge
from leakgauge.harness.values.seeding import Streams

WEIGHTS, PHOTOGRAPHS = os.environ.get("LEAKGAUGE_VIT_S14"), os.environ.get("LEAKGAUGE_PHOTOGRAPHS")
needs_files = pytest.mark.skipif(
    not (WEIGHTS and PHOTOGRAPHS),
    reason="set LEAKGAUGE_VIT_S14 to a timm vit_small_patch14_dinov2 checkpoint and LEAKGAUGE_PHOTOGRAPHS to a folder",
)


def normalised(pictures):
    """Crops pictures to 224 px at the centre: (B, 3, 224, 224), normalised."""
    crops = []
    for picture in pictures:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        crop = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224))
        crops.append(torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1).float() / 255)
    return (torch.stack(crops) - 0.45) / 0.225


def bundled(count):
    pictures = [Image.fromarray(picture()) for picture in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    quarters = []
    for i in range(count):
        picture = pictures[i % 4]
        width, height = picture.width // 2, picture.height // 2
        left, top = (i // 4 % 2) * width, (i // 8 % 2) * height
        shift = 8 * (i // 16)
        quarters.append(picture.crop((left + shift, top + shift, left + width, top + height)))
    return normalised(quarters)


def vit_small_16():
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False).eval()
    with torch.no_grad():
        # Untrained attention is all but uniform: larger weights give each block something to decide.
        for block in model.blocks:
            block.attn.qkv.weight.mul_(3)
    return model


def edge(backbone, images, ids, thresholds):
    with torch.no_grad():
        return run_edge(
            backbone,
            backbone.embed(images),
            ids,
            ThresholdMerge(thresholds),
            Streams(0),
            cut=len(thresholds),
            proportional=True,
        )[0]


def names(count):
    return tuple(f"image{i}" for i in range(count))


def assert_equals_reference(model, images, thresholds, *, patch, heads, count):
    backbone = TimmViT(model)
    batch = edge(backbone, images, names(len(images)), thresholds)
    batch.check()
    state = model.state_dict()
    worst = 0.0
    for i in range(count):
        expected, groups = reference(state, images[i], thresholds, patch=patch, heads=heads)
        own = batch.select([i])
        found = [[-1]] + [
            (own.merge_map[0] == token).nonzero().flatten().tolist() for token in range(1, len(own.tokens))
        ]
        assert found == groups, f"image {i} merged otherwise"
        with torch.no_grad():
            normed = model.norm(own.tokens).double()
        worst = max(worst, float((normed - expected).abs().max()))
    assert worst < 1e-4, worst
    return batch, worst


def test_vit_s16_equals_the_slow_reference():
    model, images = vit_small_16(), bundled(6)
    backbone = TimmViT(model)
    thresholds = calibrate_thresholds(backbone, backbone.embed(images[2:]), [0.25] * 12)
    batch, _ = assert_equals_reference(model, images, thresholds, patch=16, heads=6, count=2)
    assert int(batch.lengths.min()) < 60, "the test must merge to mean something"


def assert_batch_invariant(backbone, images, thresholds, singles):
    ids = names(len(images))
    together = edge(backbone, images, ids, thresholds)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    shuffled = edge(backbone, images[order], tuple(ids[i] for i in order), thresholds)
    worst = 0.0
    for place, image in list(enumerate(order.tolist())):
        views = [shuffled.select([place])]
        if image < singles:
            views.append(edge(backbone, images[image : image + 1], ids[image : image + 1], thresholds))
        own = together.select([image])
        for view in views:
            assert torch.equal(view.merge_map, own.merge_map)
            assert torch.equal(view.sizes, own.sizes)
            worst = max(worst, float((view.tokens - own.tokens).norm() / own.tokens.norm()))
            assert torch.allclose(view.tokens, own.tokens, rtol=1e-5, atol=1e-5 * float(own.tokens.abs().max()))
    return together, worst


def test_alone_in_a_batch_of_32_and_shuffled_are_the_same():
    model, images = vit_small_16(), bundled(32)
    backbone = TimmViT(model)
    thresholds = calibrate_thresholds(backbone, backbone.embed(images[16:]), [0.25] * 12)
    together, _ = assert_batch_invariant(backbone, images, thresholds, singles=6)
    assert len(set(together.lengths.tolist())) > 5, "the batch must be ragged to mean something"


@pytest.mark.slow
@needs_files
def test_real_weights_and_photographs_equal_the_slow_reference_alone_and_in_batches():
    model = load_timm_model("vit_small_patch14_dinov2", Path(WEIGHTS), image_px=224).model
    paths = sorted(Path(PHOTOGRAPHS).rglob("*.jpg"))[:64]
    images = normalised([Image.open(path) for path in paths])
    backbone = TimmViT(model)
    thresholds = calibrate_thresholds(backbone, backbone.embed(images[32:]), [0.25] * 12)
    assert_equals_reference(model, images[:8], thresholds, patch=14, heads=6, count=8)
    together, _ = assert_batch_invariant(backbone, images[:32], thresholds, singles=32)
    assert 5 < int(together.lengths.min()) < int(together.lengths.max()) < 130
