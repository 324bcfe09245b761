"""A model that is not what its parts say is refused, by name of what differs; number types work or are refused."""

import types

import pytest
import torch
from llava_models import clip, llava
from tiny_models import PX, tiny_victim
from torch import nn

from leakgauge.defenses.backbones import exactness
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.vqa.pipeline import VqaPipeline
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
VIT = "vit"
HF = "Dinov2ForImageClassification"


def fresh(name):
    """A victim of its own: some tests change it."""
    return tiny_victim(name)


def blocks(victim):
    return getattr(victim.model, "blocks", None) or victim.model.dinov2.encoder.layer


def forward_hook(victim):
    blocks(victim)[1].register_forward_hook(lambda _, __, out: out * 1.05)


def pre_hook(victim):
    blocks(victim)[1].register_forward_pre_hook(lambda _, args: (args[0] * 1.05, *args[1:]))


def hook_on_the_model(victim):
    def doubled(_, __, out):
        if isinstance(out, torch.Tensor):
            return out * 1.01
        out.logits = out.logits * 1.01
        return out

    victim.model.register_forward_hook(doubled)


def patched_instance(victim):
    block = blocks(victim)[0]
    plain = block.forward
    block.forward = types.MethodType(lambda self, x, *args, **kwargs: plain(x) * 1.02, block)


def patched_answer(victim):
    plain = victim.model.forward
    victim.model.forward = lambda *args, **kwargs: _scaled(plain(*args, **kwargs))


def _scaled(out):
    return out * 1.01 if isinstance(out, torch.Tensor) else types.SimpleNamespace(logits=out.logits * 1.01)


@pytest.mark.parametrize("name", [VIT, HF])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (forward_hook, "forward hook on .*tokens differ after block 2"),
        (pre_hook, "forward pre-hook on .*tokens differ after block [12]"),
        (hook_on_the_model, "forward hook on the model itself"),
        (patched_instance, "patched: forward of .*tokens differ after block 1"),
        (patched_answer, "patched: forward of the model itself"),
    ],
)
def test_what_the_adapter_leaves_out_is_refused_and_named(name, change, named):
    victim = fresh(name)
    SplitPipeline(victim, CPU)
    change(victim)  # after it was checked once: it is checked again
    with pytest.raises(ConfigError, match=named):
        SplitPipeline(victim, CPU, reduction="none", cut=2)


def test_a_patched_class_is_refused(monkeypatch):
    victim = fresh(VIT)
    kind = type(victim.model.blocks[0].attn)
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x, **kwargs: plain(self, x, **kwargs) * 1.1)
    with pytest.raises(ConfigError, match=r"patched: forward of class Attention.*after block 1"):
        SplitPipeline(victim, CPU)


def test_an_attention_mask_of_its_own_is_refused():
    victim = fresh(VIT)
    block, mask = victim.model.blocks[0], None

    def masked(x, attn_mask=mask, **_):
        near = torch.ones(x.shape[1], x.shape[1]).tril() > 0
        return type(block).forward(block, x, attn_mask=near)

    block.forward = masked
    with pytest.raises(ConfigError, match=r"patched: forward of blocks\.0"):
        SplitPipeline(victim, CPU)


@pytest.mark.parametrize("part", ["all of it", "one dropout"])
def test_training_mode_is_refused(part):
    victim = fresh(VIT)
    (victim.model if part == "all of it" else victim.model.blocks[1].mlp.drop1).train()
    with pytest.raises(ConfigError, match=r"training mode \(.*model.eval"):
        SplitPipeline(victim, CPU)


def test_hooks_that_only_look_are_no_matter_and_the_check_runs_once(monkeypatch):
    victim, calls = fresh(VIT), []
    plain = exactness._compare
    monkeypatch.setattr(exactness, "_compare", lambda *args: (calls.append(1), plain(*args)))
    victim.model.blocks[0].register_forward_hook(lambda *_: None)
    for cut in (1, 2, 3):
        SplitPipeline(victim, CPU, cut=cut)
    assert len(calls) == 1
    assert not [m for m in victim.model.modules() if len(m._forward_hooks) > 1 or m._forward_pre_hooks]


def test_a_difference_of_one_class_in_a_thousand_is_seen():
    expected = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    found = expected.clone()
    found[0, 3] += 0.01
    assert exactness.deviation(found, expected) > exactness.LIMIT
    assert exactness.deviation(found.fill_(torch.nan), expected) != 0
    assert not exactness.deviation(found, expected) <= exactness.LIMIT
    assert exactness.deviation(torch.ones(1, 3), torch.zeros(1, 3)) == float("inf")


@pytest.mark.parametrize("name", [VIT, HF, "CLIPVisionModelWithProjection"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_fewer_bits_run_from_image_to_answer(name, dtype):
    victim = fresh(name)
    images = ImageSet.from_pixels(
        torch.randint(0, 256, (3, 3, PX, PX), generator=torch.Generator().manual_seed(1)).byte()
    )
    with torch.no_grad():
        wide = victim.predict(images.images())
        victim.model.to(dtype)
        own, features = victim.predict(images.images()), victim.embed(images.images())
    assert own.dtype == features.dtype == torch.float32
    assert victim.dtype == dtype
    limit = 64 * torch.finfo(dtype).eps * float(wide.std())
    merge = {"name": "threshold", "thresholds": 0.9}
    for options in ({}, {"reduction": merge}, {"codec": {"name": "pca", "rank": 8}}):
        pipeline = SplitPipeline(victim, CPU, cut=2, **options)
        pipeline.prepare(images, Streams(0))
        sent = pipeline.transmit(images, Streams(0))
        answers = pipeline.respond(sent)
        assert sent.received.tokens.dtype == answers.dtype == torch.float32
        if not options:
            assert float((answers - own).abs().max()) < limit
            assert float((answers - wide).abs().max()) < 2 * limit
        pipeline.flops(images, sent)
        assert pipeline.edge_tokens(images.images()).tokens.dtype == torch.float32


def test_weights_of_several_number_types_are_refused():
    victim = fresh(VIT)
    victim.model.blocks[1].to(torch.bfloat16)
    with pytest.raises(ConfigError, match="several number types: bfloat16, float32"):
        SplitPipeline(victim, CPU)


def hook_on_tower(model):
    model.model.vision_tower.encoder.layers[0].register_forward_hook(lambda _, __, out: out * 1.05)


def hook_on_projector(model):
    model.model.multi_modal_projector.register_forward_hook(lambda _, __, out: out * 1.05)


def hook_on_logits(model):
    def changed(_, __, out):
        out.logits = out.logits * 1.01
        return out

    model.register_forward_hook(changed)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (hook_on_tower, "forward hook on model.vision_tower.*image tower or projector"),
        (lambda model: model.train(), "training mode"),
        (hook_on_logits, "forward hook on the model itself.*logits of the language model"),
    ],
)
def test_a_llava_that_is_not_what_it_seems_is_refused(change, named):
    victim = llava(clip(32, 8, 3))
    VqaPipeline(victim, CPU)
    change(victim.model)
    with pytest.raises(ConfigError, match=named):
        VqaPipeline(victim, CPU)


def test_what_the_split_path_runs_itself_may_carry_hooks():
    victim = llava(clip(32, 8, 3))
    hook_on_projector(victim.model)  # the projector is called as a whole, so that its hook acts in both
    VqaPipeline(victim, CPU)


def test_weights_that_overflow_are_refused():
    model = nn.Linear(2, 2)
    victim = Victim(model, (0.0,) * 3, (1.0,) * 3, "x", "x")
    with pytest.raises(ConfigError, match="NaN or infinite"):
        exactness.check_same(victim, torch.zeros(1, 2), torch.tensor([[1.0, torch.inf]]))
