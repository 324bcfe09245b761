"""Small folders of images and small weights for the tests of the image folder task."""

import io
from importlib.resources import files
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

MODEL = "vit_tiny_patch16_224"
SCENES = ("astronaut.png", "brick.png", "coffee.png")
PER_SCENE = 16


def crops(scene: str, count: int = PER_SCENE) -> list[Image.Image]:
    """Windows of one photograph that do not overlap."""
    with (files("skimage") / "data" / scene).open("rb") as stream:
        image = Image.open(stream).convert("RGB")
    side, columns = 72, image.width // 80
    return [
        image.crop((left, top, left + side, top + side))
        for left, top in ((80 * (k % columns), 80 * (k // columns)) for k in range(count))
    ]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


CONTENT = {scene.partition(".")[0]: [png(image) for image in crops(scene)] for scene in SCENES}


def write(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def labelled_content(prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{label}/{k:02}.png": data for label, images in CONTENT.items() for k, data in enumerate(images)}


def save_weights(path: Path, seed: int = 0, **options) -> Path:
    torch.manual_seed(seed)
    model = timm.create_model(MODEL, pretrained=False, **{"img_size": 64, "depth": 2} | options)
    save_file(model.state_dict(), path)
    return path
