"""Export the averaged weights of a run as a model folder: `python -m training.export_compact --run DIR --out DIR`.

Writes `OUT/model.safetensors` (float16) and `OUT/config.json`. The model card is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from propagate.features.compact.compact import SPACE_TO_DEPTH, TRAINING_TIMESTEP, UNET_CONFIG
from training.train_compact import read_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--out", type=Path, required=True, help="write the model here")
    options = parser.parse_args()
    weights = {name: value.to(torch.float16).contiguous() for name, value in read_weights(options.run, "ema").items()}
    channels = [len(weights[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(4)]
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "unet": {**UNET_CONFIG, "block_out_channels": channels},
        "space_to_depth": SPACE_TO_DEPTH,
        "prediction_type": "v_prediction",
        "betas": {"schedule": "linear", "start": 1e-4, "end": 0.02, "steps": 1000},
        "matching_timestep": TRAINING_TIMESTEP,
    }
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
