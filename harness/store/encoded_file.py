"""Stores an Encoded as safetensors: plain arrays, no code, mapped into memory when read."""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from leakgauge.harness.contracts.link import Encoded, Packets
from leakgauge.harness.values.tokens import TokenBatch

VERSION = "2"
_NUMBERS = ("payload_bytes", "side_bytes", "tokens_per_layer")
_LAYOUT = ("lengths", "sizes", "merge_map")


def _narrow(values: Tensor) -> Tensor:
    """Returns float32 values as float16 where that loses nothing, which a float16 payload's never does."""
    half = values.half()
    return half if torch.equal(half.to(values.dtype), values) else values


def _batch_tensors(batch: TokenBatch, prefix: str) -> dict[str, Tensor]:
    # Token numbers within an image fit 32 bits by far.
    layout = {f"{prefix}.{name}": getattr(batch, name).to(torch.int32).contiguous() for name in _LAYOUT}
    return {f"{prefix}.tokens": _narrow(batch.tokens).contiguous(), **layout}


def _checksum(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    """Returns a digest over all that a file holds, so that no bit of it changes unseen."""
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def to_bytes(encoded: Encoded, key: str) -> bytes:
    """Serialises an Encoded under the key that it is kept by, with a checksum of both."""
    tensors = _batch_tensors(encoded.decoded, "decoded")
    if encoded.symbols is not None:
        tensors |= _batch_tensors(encoded.symbols, "symbols")
    tensors |= {name: getattr(encoded, name).contiguous() for name in _NUMBERS}
    tensors |= {f"account.{name}": values.contiguous() for name, values in encoded.account.items()}
    flat = [packet for own in encoded.packets for packet in own]
    tensors["packets.bytes"] = torch.from_numpy(np.frombuffer(b"".join(flat), np.uint8).copy())
    tensors["packets.lengths"] = torch.tensor([len(packet) for packet in flat], dtype=torch.long)
    tensors["packets.of_image"] = torch.tensor([len(own) for own in encoded.packets], dtype=torch.long)
    about = {
        "version": VERSION,
        "key": key,
        "ids": json.dumps(encoded.ids),
        "sizes_sent": json.dumps(encoded.sizes_sent),
        "prefix": json.dumps(encoded.decoded.prefix),
        "account": json.dumps(list(encoded.account)),
    }
    return save(tensors, metadata={**about, "checksum": _checksum(tensors, about)})


def read_encoded(path: Path, key: str) -> Encoded:
    """Reads what ``to_bytes`` wrote under ``key``.

    Raises:
        OSError: The file cannot be read.
        SafetensorError: It is damaged.
        KeyError: A part is missing.
        ValueError: It is of another version or key, it has changed, or its parts contradict one another.
    """
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if about.get("version") != VERSION:
            raise ValueError(f"version {about.get('version')!r} is not {VERSION}")
        names = set(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    if about.get("key") != key:
        raise ValueError("it holds other tokens than its name says")
    if about.pop("checksum", "") != _checksum(tensors, about):
        raise ValueError("its checksum does not match")
    prefix = int(json.loads(about["prefix"]))
    ids = tuple(json.loads(about["ids"]))
    encoded = Encoded(
        ids=ids,
        decoded=_batch(tensors, "decoded", prefix),
        sizes_sent=bool(json.loads(about["sizes_sent"])),
        packets=_packets(tensors),
        symbols=_batch(tensors, "symbols", prefix) if "symbols.tokens" in names else None,
        # In the order in which they are itemised.
        account={name: tensors[f"account.{name}"] for name in json.loads(about["account"])},
        **{name: tensors[name] for name in _NUMBERS},
    )
    if len(encoded.decoded) != len(ids):
        raise ValueError(f"{len(encoded.decoded)} images, {len(ids)} identifiers")
    return encoded


def _batch(tensors: dict[str, Tensor], name: str, prefix: int) -> TokenBatch:
    lengths, sizes, merge_map = (tensors[f"{name}.{part}"].long() for part in _LAYOUT)
    return TokenBatch(tensors[f"{name}.tokens"].float(), lengths, sizes, merge_map, prefix)


def _packets(tensors: dict[str, Tensor]) -> Packets:
    data = tensors["packets.bytes"].numpy().tobytes()
    ends = accumulate(tensors["packets.lengths"].tolist(), initial=0)
    packets = [data[start:end] for start, end in pairwise(ends)]
    images = accumulate(tensors["packets.of_image"].tolist(), initial=0)
    return tuple(tuple(packets[start:end]) for start, end in pairwise(images))
