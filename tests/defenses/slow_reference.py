"""An independent reference for threshold merging in a timm ViT: one image, plain loops, float64, raw weights.

Shares no code with the packed forward: it never calls a module of the model, only reads its state dict.
"""

import math

import torch


def _linear(state, name, x):
    y = x @ state[f"{name}.weight"].T
    return y + state[f"{name}.bias"] if f"{name}.bias" in state else y


def _norm(state, name, x, eps=1e-6):
    centred = x - x.mean(dim=-1, keepdim=True)
    return (
        centred / (centred.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def _gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _embed(state, image, patch):
    rows = []
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    for top in range(0, image.shape[1], patch):
        for left in range(0, image.shape[2], patch):
            window = image[:, top : top + patch, left : left + patch]
            rows.append((kernel * window).sum(dim=(1, 2, 3)) + bias)
    return torch.cat([state["cls_token"][0], torch.stack(rows)]) + state["pos_embed"][0]


def _block(state, layer, tokens, groups, heads):
    """Attention half of one block; returns tokens after it and the mean-over-heads keys as Python vectors."""
    prefix = f"blocks.{layer}"
    count, width = tokens.shape
    depth = width // heads
    qkv = _linear(state, f"{prefix}.attn.qkv", _norm(state, f"{prefix}.norm1", tokens))
    query, key, value = qkv.split(width, dim=1)
    sizes = torch.tensor([float(len(group)) for group in groups], dtype=tokens.dtype)
    heads_out = []
    for head in range(heads):
        own = slice(head * depth, (head + 1) * depth)
        logits = query[:, own] @ key[:, own].T / math.sqrt(depth)
        # Proportional attention by its definition: a token of size s is s copies of a key.
        weight = logits.exp() * sizes
        heads_out.append(weight / weight.sum(dim=1, keepdim=True) @ value[:, own])
    attended = _linear(state, f"{prefix}.attn.proj", torch.cat(heads_out, dim=1))
    if f"{prefix}.ls1.gamma" in state:
        attended = attended * state[f"{prefix}.ls1.gamma"]
    mean_key = sum(key[:, head * depth : (head + 1) * depth] for head in range(heads)) / heads
    unit = mean_key / mean_key.norm(dim=1, keepdim=True)
    return tokens + attended, unit.reshape(count, depth)


def _merge(tokens, keys, groups, tau):
    """Merges every second patch token into its most similar neighbour of the other half, where above tau."""
    a = list(range(1, len(groups), 2))
    b = list(range(2, len(groups), 2))
    into = {}
    for i in a:
        best, chosen = -math.inf, None
        for j in b:
            similarity = float(keys[i] @ keys[j])
            if similarity > best:
                best, chosen = similarity, j
        if chosen is not None and best > tau:
            into[i] = chosen
    sums, new_groups = [], []
    for i in range(len(groups)):
        if i in into:
            continue
        members = [i] + [k for k, target in into.items() if target == i]
        total = sum(len(groups[k]) for k in members)
        sums.append(sum(len(groups[k]) * tokens[k] for k in members) / total)
        new_groups.append(sorted(patch for k in members for patch in groups[k]))
    return torch.stack(sums), new_groups


def reference(state, image, thresholds, *, patch, heads):
    """Returns normed tokens (L, D) float64 and the patches that each stands for, for a normalised image (3, H, W)."""
    state = {name: tensor.double() for name, tensor in state.items()}
    tokens = _embed(state, image.double(), patch)
    # The class token stands for itself: one member, which is no patch.
    groups = [[-1]] + [[patch] for patch in range(len(tokens) - 1)]
    for layer, tau in enumerate(thresholds):
        tokens, keys = _block(state, layer, tokens, groups, heads)
        if tau < 1:
            tokens, groups = _merge(tokens, keys, groups, tau)
        prefix = f"blocks.{layer}"
        hidden = _gelu(_linear(state, f"{prefix}.mlp.fc1", _norm(state, f"{prefix}.norm2", tokens)))
        hidden = _linear(state, f"{prefix}.mlp.fc2", hidden)
        if f"{prefix}.ls2.gamma" in state:
            hidden = hidden * state[f"{prefix}.ls2.gamma"]
        tokens = tokens + hidden
    return _norm(state, "norm", tokens), groups
