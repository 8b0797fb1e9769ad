"""A head for `compact`: Diffusion Hyperfeatures (Luo et al., NeurIPS 2023) over several layers of the embedded model.

The aggregation network is that of `diffusion.aggregation`. Its layers are residual blocks and block outputs of the
decoder, at one timestep or several, resized to the grid of stride 8. `training/train_head.py` trains one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from propagate.errors import UsageError, WeightsError
from propagate.features.diffusion.aggregation import AggregationNetwork
from propagate.features.networks.loading import load_weights, read_tensors
from propagate.files.documents import check_regular_file, parse_json

FILE = "head.safetensors"
STRIDE = 8
_Timestep = Annotated[int, Field(ge=0, le=999)]


class HeadConfig(BaseModel):
    """What a head is trained for; stored as JSON in the metadata ("config") of its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # channels of its input layers, by their names in `CompactNetwork.layers`, in order
    layers: dict[str, Annotated[int, Field(ge=1, le=1 << 15)]] = Field(min_length=1, max_length=100)
    timesteps: tuple[_Timestep, ...] = Field(min_length=1, max_length=1000)
    projection: int = Field(ge=4, le=1 << 15, multiple_of=4)
    norm_groups: int = Field(ge=1)

    @model_validator(mode="after")
    def _groups_divide(self) -> HeadConfig:
        if (self.projection // 4) % self.norm_groups:
            raise ValueError(f"{self.norm_groups} norm groups do not divide {self.projection} / 4 channels")
        return self


class CompactHead(nn.Module):
    """Maps layers of the network to one feature per 8 x 8 pixels: the sum of `share` over the timesteps."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.network = AggregationNetwork(
            tuple(config.layers.values()), config.projection, len(config.timesteps), config.norm_groups
        )

    def share(
        self, step: int, outputs: Mapping[str, Float[Tensor, "b _ _ _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "b d y x"]:
        """Return the contribution of one of the head's timesteps to the features, on a grid of (rows, columns).

        The last output of the `CompactNetwork` may be averaged or not: resizing a grid twice as fine takes the mean of
        2 x 2 cells.
        """
        parts = (
            self.network.share(step, place, F.interpolate(outputs[name], grid, mode="bilinear", align_corners=False))
            for place, name in enumerate(self.config.layers)
        )
        return reduce(torch.add, parts)


def load_head(path: Path, layers: Mapping[str, int], timestep: int) -> CompactHead:
    """Load a head from a file, or a folder with `head.safetensors`, in evaluation mode.

    Raises:
        UsageError: the head has other layers than the network, or not the extractor's timestep.
        WeightsError: it is missing, damaged, something else, or trained for other weights.
    """
    file = path / FILE if path.is_dir() else path
    config = _read_config(file)
    _check_made_for(file, config, layers, timestep)
    with torch.device("meta"):
        head = CompactHead(config)
    load_weights(head.network, read_tensors(file), file)
    return head.eval()


def save_head(head: CompactHead, path: Path) -> None:
    """Write a head for `load_head`, in float16."""
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in head.network.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt", "config": head.config.model_dump_json()})


def _read_config(file: Path) -> HeadConfig:
    remedy = f"Name a {FILE} written by training.train_head, or its folder (features.head)."
    if not file.exists():
        raise WeightsError(f"There is no {file}.", remedy)
    check_regular_file(file, "head", WeightsError)
    try:
        with safe_open(file, "pt") as content:
            metadata: dict[str, Any] = content.metadata() or {}
        # not pydantic's own JSON reader: damaged JSON needs the same message as elsewhere
        return HeadConfig.model_validate(parse_json(metadata["config"], f"{file}: its config", WeightsError))
    except ValidationError as error:
        cause = error.errors()[0]
        problem = f"{'.'.join(map(str, cause['loc']))}: {cause['msg']}"
        raise WeightsError(f"{file} is no head of the compact model ({problem}).", remedy) from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{file} is no head of the compact model ({error!r}).", remedy) from error


def _check_made_for(file: Path, config: HeadConfig, layers: Mapping[str, int], timestep: int) -> None:
    missing = [name for name in config.layers if name not in layers]
    if missing:
        raise UsageError(
            f"features.head: {file} reads {missing[0]}, and features.block ends at {[*layers][-1]}.",
            "Raise features.block, or leave features.head out.",
        )
    if timestep not in config.timesteps:
        raise UsageError(
            f"features.timestep = {timestep}: {file} was trained at {', '.join(map(str, config.timesteps))}.",
            f"Set features.timestep={config.timesteps[0]}, or leave features.head out.",
        )
    for name, channels in config.layers.items():
        if layers[name] != channels:
            raise WeightsError(
                f"{file} was made for other weights: its {name} has {channels} channels, the model's {layers[name]}.",
                "Name the weights that the head was trained on (features.weights), or train one for these.",
            )
