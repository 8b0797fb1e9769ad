"""A head for `compact`: Diffusion Hyperfeatures (Luo et al., NeurIPS 2023) over several layers of the embedded model.

The aggregation network is that of `diffusion.aggregation`. Its layers are residual blocks and block outputs of
the decoder, at one timestep or several, all brought to the grid of stride 8. `training/train_head.py` trains one.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from propagate.features.networks.loading import check_fits, read_tensors
from propagate.files.documents import check_regular_file, parse_json

FILE = "head.safetensors"
STRIDE = 8
_Timestep = Annotated[int, Field(ge=0, le=999)]


class HeadConfig(BaseModel):
    """What a head was made for; it travels as JSON in the metadata ("config") of its file.

    Attributes:
        layers: channels of the layers that it reads, by their names in `CompactNetwork.layers`, in order.
        timesteps: at which it reads them.
        projection: channels of its features.
        norm_groups: of its group norms; they divide a quarter of `projection`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """From the layers of the network to one feature per 8 x 8 pixels: the sum of `share` over the timesteps.

    Args:
        config: what it reads.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.network = AggregationNetwork(
            tuple(config.layers.values()), config.projection, len(config.timesteps), config.norm_groups
        )

    def share(
        self, step: int, outputs: Mapping[str, Float[Tensor, "b _ _ _"]], grid: tuple[int, int]
    ) -> Float[Tensor, "b d y x"]:
        """What the layers at one timestep add to the features.

        Args:
            step: place of the timestep among the head's.
            outputs: of the head's layers, from a call of `CompactNetwork`; whether the last one is averaged does not
                matter: the resizing of a grid twice as fine takes the mean of 2 x 2 cells.
            grid: rows and columns of the result.
        """
        total: Tensor | None = None
        for place, name in enumerate(self.config.layers):
            features = F.interpolate(outputs[name], grid, mode="bilinear", align_corners=False)
            part = self.network.share(step, place, features)
            total = part if total is None else total + part
        assert total is not None
        return total


def load_head(path: Path, layers: Mapping[str, int], timestep: int) -> CompactHead:
    """A head from its file, in evaluation mode, for a network that has these layers.

    Args:
        path: the file, or a folder with `head.safetensors`.
        layers: channels of the network's layers, by name (`CompactNetwork.layers`).
        timestep: the one that is asked for, of the head's.

    Raises:
        UsageError: the head reads a later block, or other timesteps, than those asked for.
        WeightsError: it is missing, damaged, something else, or made for other weights.
    """
    file = path / FILE if path.is_dir() else path
    config = _read_config(file)
    _check_made_for(file, config, layers, timestep)
    with torch.device("meta"):
        head = CompactHead(config)
    tensors = read_tensors(file)
    check_fits(head.network, tensors, str(file))
    head.network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return head.eval().requires_grad_(False)


def save_head(head: CompactHead, path: Path) -> None:
    """Write a head as `load_head` reads it, in float16."""
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
        # not pydantic's own reader of JSON: a file without the key, or of no JSON, is to be named like any other
        return HeadConfig.model_validate(parse_json(metadata["config"], f"{file}: its config", WeightsError))
    except ValidationError as error:
        cause = error.errors()[0]
        raise WeightsError(
            f"{file} is no head of the compact model ({'.'.join(map(str, cause['loc']))}: {cause['msg']}).", remedy
        ) from error
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
        known = ", ".join(map(str, config.timesteps))
        raise UsageError(
            f"features.timestep = {timestep}: {file} was trained at {known}.",
            f"Set features.timestep={config.timesteps[0]}, or leave features.head out.",
        )
    for name, channels in config.layers.items():
        if layers[name] != channels:
            raise WeightsError(
                f"{file} was made for other weights: its {name} has {channels} channels, the model's {layers[name]}.",
                "Name the weights that the head was trained on (features.weights), or train one for these.",
            )
