import pytest
import torch

from benchmarks.random_model import random_tensors, random_transcriber
from benchmarks.stages import Stages
from model.dims import DIMENSIONS
from model.errors import WeightsError
from model.whisper import Whisper
from tests import tiny


def test_forced_windows_all_have_as_many_tokens_as_they_should(monkeypatch) -> None:
    batches = []
    original = Stages._median

    def once(self, stage):
        batches.extend(cell.cell_contents for cell in stage.__closure__ if hasattr(cell.cell_contents, "steps"))
        return original(self, stage)

    monkeypatch.setattr(Stages, "_median", once)
    stages = Stages(tiny.transcriber(), tiny.speech(31.0), repeats=1, forced=12)
    assert stages.whole(3) > 0
    (batch,) = batches
    assert batch.steps == {3: 22}  # twice, and the first token of each is its prompt's


def test_random_weights_are_whole_and_do_not_overflow() -> None:
    tensors = random_tensors(tiny.DIMS)
    model = Whisper.from_tensors(tiny.DIMS, tensors, name="large-v3")
    with torch.inference_mode():
        features = model.encode(torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(features).all()
    assert 0.1 < features.std() < 10.0
    assert all(torch.isfinite(tensor).all() and tensor.dtype == torch.float16 for tensor in tensors.values())


def test_a_size_that_was_never_published_is_refused() -> None:
    with pytest.raises(WeightsError, match="huge is no published size"):
        random_transcriber("huge", "cpu", "float32")
    assert "large-v3" in DIMENSIONS
