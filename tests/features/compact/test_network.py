from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel

from propagate.features.compact.compact import UNET_CONFIG
from propagate.features.compact.network import CompactNetwork, averaged_upsampling, upsampling
from propagate.features.diffusion.core import run_until, tapped


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    unet = UNet2DModel(**{**UNET_CONFIG, "block_out_channels": (16, 32, 48, 64)}).eval().requires_grad_(False)
    for parameter in unet.parameters():  # diffusers begins with norms that do nothing and convolutions without bias
        parameter += 0.05 * torch.randn(parameter.shape)
    return unet


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("block", range(4))
@pytest.mark.parametrize("timestep", [0, 51, 999])
def test_output_is_the_block_of_the_whole_network(unet, block, averaged, timestep):
    noisy = torch.randn(2, 48, 16, 24, generator=torch.Generator().manual_seed(block))
    expected = run_until(unet.up_blocks[block], lambda: unet(noisy, torch.tensor([timestep])))
    if averaged:
        expected = F.avg_pool2d(expected, 2)
    name = f"up_blocks.{block}"
    found = CompactNetwork(unet, timestep, block)(noisy, (name,), averaged=averaged)[name]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_layers_are_those_of_the_whole_network(unet):
    noisy = torch.randn(2, 48, 16, 24, generator=torch.Generator().manual_seed(0))
    network = CompactNetwork(unet, 51, 3)
    expected: dict[int, torch.Tensor] = {}
    with tapped([unet.get_submodule(name) for name in network.layers], expected.__setitem__):
        unet(noisy, torch.tensor([51]))
    found = network(noisy, tuple(network.layers), averaged=False)
    assert list(found) == list(network.layers)
    for wanted, (name, output) in zip(expected.values(), found.items(), strict=True):
        torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
        assert output.shape[1] == network.layers[name]


def test_the_whole_network_stays_as_it_was(unet):
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    CompactNetwork(unet, 51, 2)(torch.randn(1, 48, 16, 16), ("up_blocks.2",), averaged=True)
    for name, value in unet.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
def test_folded_upsampling_is_the_same_up_to_the_rim(size):
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
    hidden = torch.randn(2, 3, *size)
    expected = convolution(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(upsampling(convolution)(hidden), expected)
    torch.testing.assert_close(averaged_upsampling(convolution)(hidden), F.avg_pool2d(expected, 2))
