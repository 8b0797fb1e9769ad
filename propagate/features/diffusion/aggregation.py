"""The aggregation network of Diffusion Hyperfeatures (Luo et al., NeurIPS 2023) and its published files.

Each layer's maps go through a bottleneck of their own, the same at every timestep, and are added with weights that are
a softmax over all layers and timesteps. Names of modules are those of the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import WeightsError
from propagate.features.networks.loading import check_fits, read_checkpoint

# of the published networks; not in their files
NORM_GROUPS = 32


class AggregationNetwork(nn.Module):
    """Maps of several layers and steps to one; fully convolutional.

    Args:
        channels: of each layer's maps.
        projection: channels of the result.
        steps: timesteps.
        norm_groups: of the group norms.
    """

    def __init__(self, channels: tuple[int, ...], projection: int, steps: int, norm_groups: int = NORM_GROUPS) -> None:
        super().__init__()
        self.bottleneck_layers = nn.ModuleList(
            nn.Sequential(_Bottleneck(inputs, projection, norm_groups)) for inputs in channels
        )
        self.mixing_weights = nn.Parameter(torch.ones(steps * len(channels)))

    def share(self, step: int, layer: int, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        """What one layer's map at one step adds to the result, which is the sum of all: no stack of maps is needed.

        Args:
            step: its place among the steps, from 0.
            layer: its place among the layers, from 0.
            features: its map, on the grid of the result.
        """
        mixing = self.mixing_weights.softmax(0)[step * len(self.bottleneck_layers) + layer]
        share: Tensor = mixing * self.bottleneck_layers[layer](features)
        return share


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.shortcut = _NormedConvolution(inputs, outputs, 1, groups) if inputs != outputs else None
        self.conv1 = _NormedConvolution(inputs, inner, 1, groups)
        self.conv2 = _NormedConvolution(inner, inner, 3, groups)
        self.conv3 = _NormedConvolution(inner, outputs, 1, groups)

    def forward(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        hidden = self.conv2(self.conv1(features).relu()).relu()
        kept = features if self.shortcut is None else self.shortcut(features)
        summed: Tensor = self.conv3(hidden) + kept
        return summed.relu()


class _NormedConvolution(nn.Conv2d):
    def __init__(self, inputs: int, outputs: int, side: int, groups: int) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2, bias=False)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        normed: Tensor = self.norm(super().forward(features))
        return normed


@dataclass(frozen=True, eq=False)
class Aggregator:
    """A published file.

    Attributes:
        network: with its weights, in evaluation mode.
        channels: of the layers it was trained on, in order.
        projection: channels of the result.
        labels: of the steps it was trained on, in order: label s of n is step n - 1 - s of the inversion, and n - 1 the
            clean picture (`save_timestep`).
        count: n, the steps of the whole inversion (`num_timesteps`).
        model_id: of the diffusion model it was trained on; may be empty.
    """

    network: AggregationNetwork
    channels: tuple[int, ...]
    projection: int
    labels: tuple[int, ...]
    count: int
    model_id: str


def load_aggregator(path: Path) -> Aggregator:
    """A file in the published layout: "config" beside "aggregation_network".

    Raises:
        WeightsError: it is missing, damaged or something else.
    """
    content = read_checkpoint(path)
    try:
        config, tensors = dict(content["config"]), dict(content["aggregation_network"])
        labels, count = tuple(int(label) for label in config["save_timestep"]), int(config["num_timesteps"])
        projection, groups = int(config["projection_dim"]), int(config.get("num_norm_groups", NORM_GROUPS))
        if wrong := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
            raise ValueError(f"{wrong[0]} is no tensor")
        channels = _layer_channels(tensors)
        with torch.device("meta"):
            network = AggregationNetwork(channels, projection, len(labels), groups)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"{path} is not an aggregation network of Diffusion Hyperfeatures ({error!r}).",
            "It holds `config` (projection_dim, save_timestep, num_timesteps) and `aggregation_network`.",
        ) from error
    check_fits(network, tensors, str(path))
    if not labels or not all(0 <= label < count for label in labels):
        raise WeightsError(
            f"{path}: save_timestep {list(labels)} does not lie within {count} steps.", "Fetch the file again."
        )
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    network.eval().requires_grad_(False)
    return Aggregator(network, channels, projection, labels, count, str(config.get("model_id", "")))


def _layer_channels(tensors: dict[str, Any]) -> tuple[int, ...]:
    count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("bottleneck_layers."))
    return tuple(int(tensors[f"bottleneck_layers.{layer}.0.conv1.weight"].shape[1]) for layer in range(count))
