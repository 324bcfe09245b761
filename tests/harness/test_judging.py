"""The judge: what it recognises, what it is not deceived by, and what becomes of scores that it cannot give."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import timm
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from toy_task import register

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.scoring import judges
from leakgauge.harness.scoring.identification import reid_top1
from leakgauge.harness.scoring.judges import AlexNetJudge, VictimJudge
from leakgauge.harness.scoring.judging import Judge, JudgedGallery

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(photographs):
    return photographs.pixels[::2]


@pytest.fixture(scope="module")
def gallery(pictures):
    return JudgedGallery(AlexNetJudge(), pictures, CPU, 64)


def as_bytes(images):
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def small_vit():
    torch.manual_seed(0)
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **shape).eval().requires_grad_(False)
    return Victim(model, (0.5,) * 3, (0.5,) * 3, "none", "tiny")


def test_it_recognises_what_is_there(gallery, pictures):
    same = gallery.scores(pictures)
    assert same.values["judge_reid_top1"].tolist() == [1.0] * len(pictures)
    assert torch.allclose(same.values["judge_agreement"], torch.ones(len(pictures)), atol=1e-4)
    assert not same.reasons
    soft = interpolate(interpolate(pictures / 255.0, size=(24, 24), mode="area"), size=(64, 64), mode="bicubic")
    blurred = gallery.scores(as_bytes(soft)).values
    assert float(blurred["judge_reid_top1"].mean()) > 0.9
    assert 0.4 < float(blurred["judge_agreement"].mean()) < 0.99


@pytest.mark.parametrize("shown", ["grey", "noise", "the mean", "another"])
def test_what_shows_nothing_is_not_recognised(gallery, pictures, shown):
    noise = torch.rand(pictures.shape, generator=torch.Generator().manual_seed(0))
    nothing = {
        "grey": torch.full_like(noise, 0.5),
        "noise": noise,
        "the mean": (pictures / 255.0).mean(dim=0).expand_as(noise),
        "another": pictures.roll(3, 0) / 255.0,
    }[shown]
    found = gallery.scores(as_bytes(nothing)).values
    assert float(found["judge_reid_top1"].mean()) <= 2 / len(pictures)
    assert float(found["judge_agreement"].mean()) < 0.25


def test_features_of_the_victim_without_a_picture_deceive_the_victim_alone(gallery, pictures):
    """A white-box attack on the victim's features, from noise: the victim names every original, the judge none."""
    victim = small_vit()
    wanted = victim.embed(pictures / 255.0)
    images = torch.full(pictures.shape, 0.5) + 0.1 * torch.rand(
        pictures.shape, generator=torch.Generator().manual_seed(0)
    )
    images.requires_grad_()
    optimiser = torch.optim.Adam([images], lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss = 1 - torch.nn.functional.cosine_similarity(victim.embed(images), wanted, dim=1).mean()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    rebuilt = as_bytes(images.detach())
    deceived = reid_top1(victim.embed(rebuilt / 255.0), wanted)
    judged = gallery.scores(rebuilt).values
    assert float(deceived.mean()) > 0.9
    assert float(judged["judge_reid_top1"].mean()) <= 2 / len(pictures)
    assert float(judged["judge_agreement"].mean()) < 0.25


def test_the_victim_may_judge_and_says_that_it_is_not_independent(pictures):
    victim, judge = small_vit(), VictimJudge()
    with pytest.raises(PluginError, match="prepare"):
        judge.features(pictures / 255.0)
    judge.prepare(victim, CPU)
    gallery = JudgedGallery(judge, pictures, CPU, 5)
    rebuilt = as_bytes(pictures / 255.0 + 0.2 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1)))
    expected = reid_top1(victim.embed(rebuilt / 255.0), victim.embed(pictures / 255.0))
    assert torch.equal(gallery.scores(rebuilt).values["judge_reid_top1"], expected)
    assert gallery.described() == {**judge.described(), "name": "victim", "independent": False}


def test_without_weights_all_is_unscored_with_the_reason(monkeypatch, pictures):
    monkeypatch.setattr(judges, "lpips_network", lambda: "no alex weights -- run pip")
    gallery = JudgedGallery(AlexNetJudge(), pictures, CPU, 64)
    found = gallery.scores(pictures)
    assert all(bool(values.isnan().all()) for values in found.values.values())
    assert set(found.reasons.values()) == {"no alex weights -- run pip"}
    assert gallery.described()["unscored"] == "no alex weights -- run pip"


def test_small_images_are_unscored_with_the_reason():
    small = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    found = JudgedGallery(AlexNetJudge(), small, CPU, 64).scores(small)
    assert all("at least 31 px" in reason for reason in found.reasons.values())
    assert len(found.reasons) == 2


def test_the_gallery_is_looked_at_once_and_batches_do_not_matter(pictures):
    class Counting(AlexNetJudge):
        seen: ClassVar[list[int]] = []

        def features(self, images):
            self.seen.append(len(images))
            return super().features(images)

    gallery = JudgedGallery(Counting(), pictures, CPU, 16)
    rebuilt = pictures.roll(1, 2)
    first = gallery.scores(rebuilt)
    gallery.scores(rebuilt)
    assert sum(Counting.seen) == 3 * len(pictures)
    alone = JudgedGallery(AlexNetJudge(), pictures, CPU, 3).scores(rebuilt)
    assert torch.allclose(first.values["judge_agreement"], alone.values["judge_agreement"], atol=1e-5)


class Brightness(Judge):
    """A third party's: the brightness of 64 places."""

    name = "brightness"

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def features(self, images):
        return images.flatten(1)[:2] if self.wrong else adaptive_avg_pool2d(images, 8).flatten(1)


def suite_of(judge):
    return SimpleNamespace(judge=SimpleNamespace(name=judge, options={}), batch_size=8)


def test_a_third_partys_judge_and_bad_ones(monkeypatch, pictures):
    register(monkeypatch, judges_brightness="test_judging:Brightness", judges_none="test_judging:small_vit")
    found = JudgedGallery.of(suite_of("brightness"), small_vit(), pictures, CPU)
    assert found.scores(pictures).values["judge_reid_top1"].tolist() == [1.0] * len(pictures)
    with pytest.raises(PluginError, match="Victim is no judge"):
        JudgedGallery.of(suite_of("none"), small_vit(), pictures, CPU)
    with pytest.raises(ConfigError, match="did you mean 'alexnet'"):
        JudgedGallery.of(suite_of("alexnets"), small_vit(), pictures, CPU)
    with pytest.raises(PluginError, match="features of"):
        JudgedGallery(Brightness(wrong=True), pictures, CPU, 8).scores(pictures)
