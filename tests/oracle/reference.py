"""The reference implementation on our weights: the oracle that the model's tests compare with."""

from dataclasses import asdict

import whisper
import whisper.model
from whisper.model import Whisper

from model.weights import Weights


def reference_model(weights: Weights) -> Whisper:
    """A `whisper.model.Whisper` in float32, in evaluation mode, holding copies of these weights.

    With the alignment heads of their size, if it is a published one.
    """
    model = Whisper(whisper.model.ModelDimensions(**asdict(weights.dims)))
    model.load_state_dict(weights.tensors, strict=True)
    if weights.name in whisper._ALIGNMENT_HEADS:
        model.set_alignment_heads(whisper._ALIGNMENT_HEADS[weights.name])
    return model.float().eval().requires_grad_(False)
