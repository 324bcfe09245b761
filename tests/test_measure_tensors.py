"""``leakgauge.measure``: a user's own model and tensors, with all that a run from the command line has."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given as given_values
from hypothesis import settings
from hypothesis import strategies as st
from safetensors.torch import save
from timm.layers import RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

import leakgauge
from leakgauge import measuring
from leakgauge.benchmarks.tasks.tensor_files import IMAGES
from leakgauge.benchmarks.tasks.tensors import Tensors
from leakgauge.benchmarks.victims.described_vit import DESCRIPTION, WEIGHTS, arguments_of, describe, rebuild

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 3}
FED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
KEYS = {
    **FED,
    "cut": 2,
    "attacks": ["ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 12,
    "device": "cpu",
}
MOVES = ["attack_seconds", "latency_ms"]


def small(**changes):
    torch.manual_seed(7)
    model = VisionTransformer(**{**SMALL, **changes})
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return model


def pictures(count=80, px=32, seed=0):
    """Smooth random images, no two of which are alike."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 5, 5), dtype=np.float32))
    grown = torch.nn.functional.interpolate(coarse, size=(px, px), mode="bicubic", align_corners=False)
    return (grown.clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def given():
    images = pictures()
    return small(), images, torch.arange(len(images)) % 3


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    model, images, labels = given
    names = ["ash", "birch", "cedar"]
    out = tmp_path_factory.mktemp("measured") / "run"
    return leakgauge.measure(model, images, labels, out=out, workers=1, class_names=names, **KEYS)


def test_it_is_a_run_like_any_other(run, given):
    assert list(run.points["operating_point"]) == ["undefended", "merged_half"]
    assert set(run.cells["attack"]) == {"floor_mean", "ridge"}
    assert run.cells["leakage"].notna().all()
    read = run.loaded.manifest["read"]
    assert list(read["classes"]) == ["ash", "birch", "cedar"]
    assert read["preprocessing"]["source"] == "as given"
    assert read["undefended"]["quality_name"] == "top-1 accuracy (own head)"
    assert run.report().stat().st_size > 10_000
    assert run.score("cpu") == 4


def test_the_users_own_model_is_what_is_measured(run, given):
    model, images, labels = given
    task = Tensors(run.suite.task.options["path"])
    shown = task.split("evaluation")
    position = {image.numpy().tobytes(): row for row, image in enumerate(images)}
    rows = [position[image.numpy().tobytes()] for image in shown.pixels]
    assert torch.equal(labels[rows], shown.labels)
    mean, std = (torch.tensor(FED[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        wanted = model.eval()((shown.images() - mean) / std)
    torch.testing.assert_close(task.victim().predict(shown.images()), wanted)
    right = (wanted.argmax(dim=1) == shown.labels).float()
    assert torch.equal(task.quality(wanted, task.target(shown)), right)


@pytest.mark.slow
def test_two_workers_and_a_second_call_give_the_same(run, given, tmp_path):
    model, images, labels = given
    names = ["ash", "birch", "cedar"]
    other = leakgauge.measure(model, images, labels, out=tmp_path / "run", workers=2, class_names=names, **KEYS)
    pd.testing.assert_frame_equal(other.cells.drop(columns=MOVES), run.cells.drop(columns=MOVES))
    pd.testing.assert_frame_equal(other.images, run.images)


def test_the_same_inputs_resume_and_others_are_refused(run, given):
    model, images, labels = given
    names = ["ash", "birch", "cedar"]
    seen = []
    again = leakgauge.measure(
        model,
        images.permute(0, 2, 3, 1).numpy(),
        labels.tolist(),
        out=run.path,
        class_names=names,
        progress=lambda done, total: seen.append((done, total)),
        **KEYS,
    )
    assert set(seen) == {(4, 4)}
    pd.testing.assert_frame_equal(again.cells, run.cells)
    floats = images.double() / 255.0
    seen.clear()
    leakgauge.measure(
        model, floats, labels, out=run.path, class_names=names, progress=lambda *p: seen.append(p), **KEYS
    )
    assert set(seen) == {(4, 4)}
    for changed in ({"mean": (0.5, 0.4, 0.31)}, {"evaluation_images": 11}):
        with pytest.raises(leakgauge.LeakgaugeError, match="another suite, data or weights"):
            leakgauge.measure(model, images, labels, out=run.path, class_names=names, **{**KEYS, **changed})
    other = small(num_heads=2)
    other.load_state_dict(model.state_dict())
    with pytest.raises(leakgauge.LeakgaugeError, match="another suite, data or weights"):
        leakgauge.measure(other, images, labels, out=run.path, class_names=names, **KEYS)


def test_groups_stay_together(given, tmp_path):
    model, images, _ = given
    groups = torch.arange(len(images)) // 4
    fed = (FED["mean"], FED["std"])
    files = measuring.inputs_of(model, images, None, None, fed, None, None, groups.numpy())
    task = Tensors(str(files.write(tmp_path)))
    row = {image.numpy().tobytes(): int(group) for image, group in zip(images, groups, strict=True)}
    found = {}
    for name in ("attacker", "calibration", "search", "evaluation"):
        for image in task.split(name).pixels:
            found.setdefault(row[image.numpy().tobytes()], set()).add(name)
    assert max(map(len, found.values())) == 1
    assert task.reading().copies.grouped_by == "the groups given"
    with pytest.raises(leakgauge.LeakgaugeError, match="groups: shape"):
        measuring.inputs_of(model, images, None, None, fed, None, None, groups[1:])


def test_auxiliary_images_are_the_attackers_alone(given, tmp_path):
    model, images, _ = given
    own = pictures(40, seed=1)
    doubled = torch.cat([own, own[:4]])
    files = measuring.inputs_of(model, images, None, doubled, (FED["mean"], FED["std"]), None, None)
    task = Tensors(str(files.write(tmp_path)))
    assert len(task.split("attacker")) == 40
    assert not set(task.split("attacker").ids) & {
        i for s in ("evaluation", "search", "calibration") for i in task.split(s).ids
    }
    assert task.quality_name == "top-1 agreement with the undefended model"
    files = measuring.inputs_of(
        model, images, None, torch.cat([own, images[:2]]), (FED["mean"], FED["std"]), None, None
    )
    with pytest.raises(leakgauge.LeakgaugeError, match="2 of the auxiliary images are among the images under attack"):
        Tensors(str(files.write(tmp_path))).split("attacker")


KINDS = [
    {},
    {"global_pool": "avg"},
    {"global_pool": "avg", "fc_norm": False},
    {"global_pool": "avg", "class_token": False},
    {"global_pool": "map", "class_token": False},
    {"reg_tokens": 4, "no_embed_class": True},
    {"pre_norm": True, "qkv_bias": False, "qk_norm": True, "init_values": 0.1},
    {"norm_layer": RmsNorm, "mlp_layer": SwiGLU, "act_layer": torch.nn.SiLU},
    {"mlp_ratio": 2.0, "num_heads": 8, "num_classes": 0},
    {"norm_layer": torch.nn.LayerNorm, "act_layer": "quick_gelu"},
    {"scale_attn_norm": True, "scale_mlp_norm": True, "proj_bias": False},
    {"drop_rate": 0.5, "drop_path_rate": 0.2, "attn_drop_rate": 0.1},
    {"final_norm": False},
]


@pytest.mark.parametrize("changes", KINDS, ids=lambda one: " ".join(one) or "plain")
def test_models_are_built_again_as_they_were(changes):
    model = small(**changes)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(3, 3, 32, 32)
    twin = rebuild(*describe(model, images))
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(twin(images), model.eval()(images))


def test_named_and_distilled_models_too():
    images = torch.randn(2, 3, 32, 32)
    for model in (
        timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=5),
        timm.create_model("vit_small_patch14_dinov2", img_size=28, num_classes=0),
        timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2).bfloat16(),
    ):
        fit = images[:, :, : model.patch_embed.img_size[0], : model.patch_embed.img_size[0]].to(
            next(model.parameters()).dtype
        )
        twin = rebuild(*describe(model, fit))
        with torch.no_grad():
            torch.testing.assert_close(twin(fit), model.eval()(fit))
    assert isinstance(timm.create_model("deit_tiny_distilled_patch16_224"), VisionTransformerDistilled)


def test_a_head_replaced_for_fine_tuning_counts():
    model = small()
    model.head = torch.nn.Linear(model.embed_dim, 7)  # `num_classes` stays as it was
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rebuild(*describe(model, images))(images), model.eval()(images))


class Turned(VisionTransformer):
    def forward(self, images):
        return super().forward(images.flip(3))


def other_forward():
    model = small()
    plain = model.forward
    model.forward = lambda images: 2 * plain(images)
    return model


def hooked():
    model = small()
    model.blocks[1].register_forward_hook(lambda module, inputs, output: output.roll(1, -1))
    return model


def uneven():
    model = small()
    model.blocks[1].attn.num_heads, model.blocks[1].attn.head_dim = 8, 4
    return model


def other_eps():
    model = small()
    model.norm.eps = 1e-3
    return model


def broken():
    model = small()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    return model


def activated():
    model = small()
    for block in model.blocks:
        block.mlp.act = torch.nn.Tanh()
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: torch.nn.Linear(3, 3), "not timm's VisionTransformer"),
        (lambda: Turned(**SMALL), "Turned is not timm's VisionTransformer"),
        (other_forward, "does more than its modules say"),
        (hooked, "does more than its modules say"),
        (uneven, "does more than its modules say"),
        (other_eps, "does more than its modules say"),
        (broken, "NaN or infinite"),
        (activated, "Tanh cannot be written down"),
        (lambda: small().head.half() and _mixed(), "of 2 number types"),
    ],
)
def test_models_that_cannot_be_carried_are_refused(model, said):
    with pytest.raises(leakgauge.LeakgaugeError, match=said) as caught:
        describe(model(), torch.randn(2, 3, 32, 32))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


def _mixed():
    model = small()
    model.head.half()
    return model


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": lambda x: x[0]}, r"images: shape \(3, 32, 32\)"),
        ({"images": lambda x: x[:, :1]}, "which axis holds the 3 colours"),
        ({"images": lambda x: x[:0]}, r"shape \(0, 3, 32, 32\)"),
        ({"images": lambda x: x.float()}, "their values run from .* not from 0 to 1"),
        ({"images": lambda x: x.float() / 127.5 - 1}, "undo the normalisation"),
        ({"images": lambda x: x.float() / 255 * float("nan")}, "NaN or infinite"),
        ({"images": lambda x: x.long()}, "torch.int64 -- give uint8"),
        ({"images": lambda x: x[:, :, :24, :24]}, "they are 24 x 24 px, the model takes 32 x 32"),
        ({"images": lambda x: x[:, :, :24]}, "they are 32 x 24 px"),
        ({"images": lambda x: "photos"}, "no array of numbers|shape"),
        ({"labels": lambda y: y[:-1]}, r"labels: shape \(79,\) for 80 images"),
        ({"labels": lambda y: y + 1}, "run from 1 to 3, the head has 3 classes"),
        ({"labels": lambda y: y - 1}, "run from -1 to 1"),
        ({"labels": lambda y: y.float()}, "torch.float32 -- give whole numbers"),
        ({"mean": None}, "one of mean and std is missing"),
        ({"mean": None, "std": None}, "does not say how its images are normalised"),
        ({"std": (1, 0, 1)}, "is not three numbers in range"),
        ({"task": "photos"}, "makes the task itself"),
        ({"class_names": "abc"}, "one text"),
        ({"class_names": ["a", "b"]}, "2 names for the 3 classes"),
        ({"auxiliary": pictures(4, px=24)}, "auxiliary: they are 24 x 24 px"),
        ({"attacks": "ridge"}, "is one name, not a list"),
        ({"attacks": ["rigde"]}, "did you mean 'ridge'"),
        ({"points": ["undefended", {"name": "x", "reduction": "thresold"}]}, "did you mean 'threshold'"),
        ({"cut": 9}, "cut"),
        ({"defense": "split_pipeline"}, "no mapping of options"),
        ({"evaluation_image": 3}, "unknown key 'evaluation_image'"),
    ],
)
def test_mistakes_are_told_in_a_line(given, tmp_path, changes, said):
    model, images, labels = given
    keys = {**KEYS, **{name: value for name, value in changes.items() if name not in {"images", "labels"}}}
    images, labels = changes.get("images", lambda x: x)(images), changes.get("labels", lambda y: y)(labels)
    with pytest.raises(leakgauge.LeakgaugeError, match=said) as caught:
        leakgauge.measure(model, images, labels, out=tmp_path / "run", workers=1, **keys)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 200


def test_too_few_images_are_told(given, tmp_path):
    model, images, _ = given
    with pytest.raises(leakgauge.LeakgaugeError, match="not enough for the splits"):
        leakgauge.measure(model, images[:6], out=tmp_path / "run", workers=1, **KEYS)
    assert not list(tmp_path.iterdir()), "what is refused leaves nothing behind"


def test_a_refused_call_leaves_what_others_wrote(given, tmp_path):
    model, images, labels = given
    kept = tmp_path / "run.inputs" / "other"
    kept.mkdir(parents=True)
    with pytest.raises(leakgauge.LeakgaugeError, match="cut"):
        leakgauge.measure(model, images, labels, out=tmp_path / "run", workers=1, **{**KEYS, "cut": 9})
    assert list(kept.parent.iterdir()) == [kept]


@pytest.fixture
def written(given, tmp_path):
    model, images, labels = given
    files = measuring.inputs_of(model, images, labels, None, (FED["mean"], FED["std"]), None, "mine")
    return files.write(tmp_path)


@pytest.mark.parametrize("name", [DESCRIPTION, WEIGHTS, IMAGES])
def test_a_damaged_folder_is_told(written, name):
    path = written / name
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", data[:-9] + b"?" + data[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(leakgauge.LeakgaugeError) as caught:
            Tensors(str(written)).victim()
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(leakgauge.LeakgaugeError, match="cannot read"):
        Tensors(str(written)).split("evaluation")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.5, 0.5]),
        ("std", [0.0, 1.0, 1.0]),
        ("mean", ["a", "b", "c"]),
        ("classes", -1),
        ("classes", 2),
        ("model", {}),
        ("format", 2),
        ("class_names", "abc"),
        ("sha256", {}),
    ],
)
def test_a_changed_description_is_refused(written, key, value):
    path = written / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    task = Tensors(str(written))
    with pytest.raises(leakgauge.LeakgaugeError):
        task.victim()


@pytest.mark.parametrize("value", [0, 10**9, "x", None, 3.5])
def test_arguments_that_describe_no_model_are_refused(given, value):
    arguments, weights = arguments_of(given[0]), save(given[0].state_dict())
    for name in ("depth", "embed_dim", "num_heads", "norm_layer"):
        with pytest.raises(leakgauge.LeakgaugeError):
            rebuild({"kind": "VisionTransformer", "arguments": {**arguments, name: value}}, weights)
    with pytest.raises(leakgauge.LeakgaugeError):
        rebuild({"kind": "os.system", "arguments": arguments}, weights)


def test_another_number_of_heads_is_another_victim(written):
    digest = Tensors(str(written)).victim().weights_hash
    path = written / DESCRIPTION
    stated = json.loads(path.read_text())
    stated["model"]["arguments"]["num_heads"] = 2
    path.write_text(json.dumps(stated))
    assert Tensors(str(written)).victim().weights_hash != digest


def test_another_normalisation_is_another_victim(given, tmp_path):
    model, images, _ = given
    digests = set()
    for mean, std in ((FED["mean"], FED["std"]), (FED["std"], FED["std"]), (FED["mean"], FED["mean"])):
        files = measuring.inputs_of(model, images, None, None, (mean, std), None, "mine")
        digests.add(Tensors(str(files.write(tmp_path))).victim().weights_hash)
    assert len(digests) == 3


@settings(max_examples=25, deadline=None)
@given_values(byte=st.integers(0, 255), off=st.floats(-0.499, 0.499))
def test_floats_are_the_nearest_byte(given, byte, off):
    level = min(max(byte + off, 0.0), 255.0) / 255.0
    files = measuring.inputs_of(given[0], np.full((1, 32, 32, 3), level), None, None, (FED["mean"],) * 2, None, None)
    assert files.pixels.unique().tolist() == [byte]


def test_examples_in_docstrings_run():
    found = doctest.testmod(measuring)
    assert found.attempted
    assert not found.failed
