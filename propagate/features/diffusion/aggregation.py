"""The aggregation network of Diffusion Hyperfeatures (Luo et al., NeurIPS 2023) and its published files.

The maps of each layer pass through a bottleneck, shared by all timesteps, and are added with weights that are a softmax
over all layers and timesteps. Modules are named as in the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from propagate.errors import WeightsError
from propagate.features.networks.loading import load_weights, read_checkpoint

NORM_GROUPS = 32  # of the published networks; their files do not say it


class AggregationNetwork(nn.Module):
    """Combines maps of several layers (`channels` each) and steps into one of `projection` channels."""

    def __init__(self, channels: tuple[int, ...], projection: int, steps: int, norm_groups: int = NORM_GROUPS) -> None:
        super().__init__()
        self.bottleneck_layers = nn.ModuleList(
            nn.Sequential(_Bottleneck(inputs, projection, norm_groups)) for inputs in channels
        )
        self.mixing_weights = nn.Parameter(torch.ones(steps * len(channels)))

    def share(self, step: int, layer: int, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d y x"]:
        """Return one layer's contribution at one step (both from 0), from its map on the grid of the result.

        The result of the network is the sum of all contributions.
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
        summed: Tensor = self.conv3(hidden) + (features if self.shortcut is None else self.shortcut(features))
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
    """The content of a published file."""

    network: AggregationNetwork  # with its weights, in evaluation mode
    channels: tuple[int, ...]  # of the layers it was trained on
    projection: int  # channels of the result
    labels: tuple[int, ...]  # `save_timestep`: label s of n is step n - 1 - s of the inversion, n - 1 the clean picture
    count: int  # `num_timesteps`: n, the steps of the whole inversion
    model_id: str  # the diffusion model it was trained on; may be empty


def load_aggregator(path: Path) -> Aggregator:
    """Load a file in the published layout, with "config" beside "aggregation_network", or raise a WeightsError."""
    content = read_checkpoint(path)
    try:
        config, tensors = dict(content["config"]), dict(content["aggregation_network"])
        labels, count = tuple(int(label) for label in config["save_timestep"]), int(config["num_timesteps"])
        projection, groups = int(config["projection_dim"]), int(config.get("num_norm_groups", NORM_GROUPS))
        if wrong := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
            raise ValueError(f"{wrong[0]} is no tensor")
        layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("bottleneck_layers."))
        weights = (tensors[f"bottleneck_layers.{layer}.0.conv1.weight"] for layer in range(layers))
        channels = tuple(int(weight.shape[1]) for weight in weights)
        with torch.device("meta"):
            network = AggregationNetwork(channels, projection, len(labels), groups)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"{path} is not an aggregation network of Diffusion Hyperfeatures ({error!r}).",
            "It holds `config` (projection_dim, save_timestep, num_timesteps) and `aggregation_network`.",
        ) from error
    if not labels or not all(0 <= label < count for label in labels):
        raise WeightsError(
            f"{path}: save_timestep {list(labels)} does not lie within {count} steps.", "Fetch the file again."
        )
    load_weights(network, tensors, path)
    return Aggregator(network, channels, projection, labels, count, str(config.get("model_id", "")))
