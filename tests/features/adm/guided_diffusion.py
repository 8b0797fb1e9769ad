"""A slow twin of guided-diffusion's U-Net: made from its options, not from the weights, and computed layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """As `create_model` of guided-diffusion takes them; attention at downsampling rates."""

    base: int = 32
    multipliers: tuple[float, ...] = (1, 2)
    res_blocks: int = 1
    attention: tuple[int, ...] = (2,)
    head_channels: int = 16
    scale_shift: bool = True
    updown: bool = True
    learn_sigma: bool = True
    classes: int = 0
    in_channels: int = 3


# name, kind, input channels, output channels of the layers of one block
Layer = tuple[str, str, int, int]


def blocks(options: Options) -> tuple[list[list[Layer]], list[Layer], list[list[Layer]]]:
    """The layers of the input blocks, the middle block and the output blocks."""
    widths = [int(options.base * multiplier) for multiplier in options.multipliers]
    width, rate = widths[0], 1
    inputs: list[list[Layer]] = [[("input_blocks.0.0", "conv", options.in_channels, width)]]
    skips = [width]
    for level, level_width in enumerate(widths):
        for _ in range(options.res_blocks):
            name = f"input_blocks.{len(inputs)}"
            layers = [(f"{name}.0", "res", width, level_width)]
            width = level_width
            if rate in options.attention:
                layers.append((f"{name}.1", "attention", width, width))
            inputs.append(layers)
            skips.append(width)
        if level < len(widths) - 1:
            inputs.append([(f"input_blocks.{len(inputs)}.0", "res_down" if options.updown else "down", width, width)])
            skips.append(width)
            rate *= 2
    middle = [
        ("middle_block.0", "res", width, width),
        ("middle_block.1", "attention", width, width),
        ("middle_block.2", "res", width, width),
    ]
    outputs: list[list[Layer]] = []
    for level in reversed(range(len(widths))):
        for number in range(options.res_blocks + 1):
            name = f"output_blocks.{len(outputs)}"
            layers = [(f"{name}.0", "res", width + skips.pop(), widths[level])]
            width = widths[level]
            if rate in options.attention:
                layers.append((f"{name}.{len(layers)}", "attention", width, width))
            if level and number == options.res_blocks:
                layers.append((f"{name}.{len(layers)}", "res_up" if options.updown else "up", width, width))
                rate //= 2
            outputs.append(layers)
    return inputs, middle, outputs


def random_state(options: Options, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with weights that keep activations near 1, and no zeros, so that every layer shows."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _shapes(options):
        if len(shape) > 1:
            state[name] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        else:
            center = 1.0 if name.endswith("weight") else 0.0
            state[name] = center + 0.2 * torch.randn(shape, generator=generator)
    return state


def _shapes(options: Options) -> Iterator[tuple[str, tuple[int, ...]]]:
    embedding = 4 * options.base
    inputs, middle, outputs = blocks(options)
    yield from _both("time_embed.0", embedding, options.base)
    yield from _both("time_embed.2", embedding, embedding)
    if options.classes:
        yield "label_emb.weight", (options.classes, embedding)
    for name, kind, before, after in [layer for block in [*inputs, middle, *outputs] for layer in block]:
        if kind == "conv":
            yield from _both(name, after, before, 3, 3)
        elif kind == "down":
            yield from _both(f"{name}.op", after, before, 3, 3)
        elif kind == "up":
            yield from _both(f"{name}.conv", after, before, 3, 3)
        elif kind == "attention":
            yield from _both(f"{name}.norm", after)
            yield from _both(f"{name}.qkv", 3 * after, after, 1)
            yield from _both(f"{name}.proj_out", after, after, 1)
        else:
            yield from _both(f"{name}.in_layers.0", before)
            yield from _both(f"{name}.in_layers.2", after, before, 3, 3)
            yield from _both(f"{name}.emb_layers.1", after * (2 if options.scale_shift else 1), embedding)
            yield from _both(f"{name}.out_layers.0", after)
            yield from _both(f"{name}.out_layers.3", after, after, 3, 3)
            if before != after:
                yield from _both(f"{name}.skip_connection", after, before, 1, 1)
    first = int(options.base * options.multipliers[0])
    yield from _both("out.0", first)
    yield from _both("out.2", 6 if options.learn_sigma else 3, first, 3, 3)


def _both(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def activations(state: dict[str, Tensor], options: Options, noisy: Tensor, timestep: int) -> list[Tensor]:
    """The output of every output block."""

    def weights(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"].float(), state[f"{name}.bias"].float()

    half = options.base // 2
    angles = timestep * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    sinusoid = torch.cat([angles.cos(), angles.sin()])[None]
    embedding = F.linear(F.silu(F.linear(sinusoid, *weights("time_embed.0"))), *weights("time_embed.2"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, *weights(name))

    def res(x: Tensor, name: str, kind: str) -> Tensor:
        h = F.silu(norm(x, f"{name}.in_layers.0"))
        if kind == "res_down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if kind == "res_up":
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = F.conv2d(h, *weights(f"{name}.in_layers.2"), padding=1)
        emb = F.linear(F.silu(embedding), *weights(f"{name}.emb_layers.1"))[:, :, None, None]
        if options.scale_shift:
            scale, shift = emb.chunk(2, 1)
            h = norm(h, f"{name}.out_layers.0") * (1 + scale) + shift
        else:
            h = norm(h + emb, f"{name}.out_layers.0")
        h = F.conv2d(F.silu(h), *weights(f"{name}.out_layers.3"), padding=1)
        skip = F.conv2d(x, *weights(f"{name}.skip_connection")) if f"{name}.skip_connection.weight" in state else x
        return skip + h

    def attention(x: Tensor, name: str) -> Tensor:
        flat = x.flatten(2)
        qkv = F.conv1d(F.group_norm(flat, 32, *weights(f"{name}.norm")), *weights(f"{name}.qkv"))
        mixed = []
        for head in qkv.split(3 * options.head_channels, 1):
            q, k, v = head.split(options.head_channels, 1)
            mixed.append(v @ (k.mT @ q / math.sqrt(options.head_channels)).softmax(1))
        return (flat + F.conv1d(torch.cat(mixed, 1), *weights(f"{name}.proj_out"))).view_as(x)

    def run(x: Tensor, layers: list[Layer]) -> Tensor:
        for name, kind, _, _ in layers:
            if kind == "conv":
                x = F.conv2d(x, *weights(name), padding=1)
            elif kind == "down":
                x = F.conv2d(x, *weights(f"{name}.op"), padding=1, stride=2)
            elif kind == "up":
                x = F.conv2d(F.interpolate(x, scale_factor=2), *weights(f"{name}.conv"), padding=1)
            else:
                x = attention(x, name) if kind == "attention" else res(x, name, kind)
        return x

    inputs, middle, outputs = blocks(options)
    hidden, skips, taps = noisy, [], []
    for layers in inputs:
        hidden = run(hidden, layers)
        skips.append(hidden)
    hidden = run(hidden, middle)
    for layers in outputs:
        hidden = run(torch.cat([hidden, skips.pop()], 1), layers)
        taps.append(hidden)
    return taps
