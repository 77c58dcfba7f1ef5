"""Random weights of any published size, for timings: what a step takes does not depend on the values.

Used by `benchmarks.stages`, where the weights themselves are not at hand. A text comes out of it that means nothing and
does not end; whoever times it forces its length.
"""

import torch
from torch import Tensor

from model import Transcriber
from model.compute import choose_compute_type, choose_device
from model.dims import DIMENSIONS, ModelDimensions, canonical_name
from model.errors import WeightsError
from model.weights import Weights
from model.weights.checks import expected_shapes

_DRAWN = 1 << 20
"""Numbers drawn once and repeated: 1.5 billion of them would take a minute."""


def random_transcriber(name: str, device: str, compute_type: str) -> Transcriber:
    """A model of a published size; `WeightsError` for a name that is none, `OptionError` as in `model.compute`."""
    canonical = canonical_name(name)
    if canonical not in DIMENSIONS:
        raise WeightsError(f"{name} is no published size; those are {', '.join(DIMENSIONS)}")
    place = choose_device(device)
    weights = Weights(DIMENSIONS[canonical], random_tensors(DIMENSIONS[canonical]), canonical, None)
    return Transcriber.from_weights(weights, place, choose_compute_type(compute_type, place))


def random_tensors(dims: ModelDimensions) -> dict[str, Tensor]:
    """Every tensor of such a model, float16: activations stay of the order of 1."""
    drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for name, shape in expected_shapes(dims).items():
        n, fan_in = torch.Size(shape).numel(), torch.Size(shape[1:]).numel()
        values = drawn.repeat(-(-n // _DRAWN))[:n].view(shape)
        is_norm = "ln" in name and name.endswith("weight")
        tensors[name] = (torch.ones(shape) if is_norm else values * fan_in**-0.5).half()
    return tensors
