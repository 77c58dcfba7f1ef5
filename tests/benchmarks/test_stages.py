import json

import pytest
import torch

from benchmarks import saturation
from benchmarks.machine.random_model import random_tensors, random_transcriber
from benchmarks.stages import Stages, main
from model.compute_options import ComputeOptions
from model.decoding.inference import make_inference
from model.dims import DIMENSIONS
from model.errors import WeightsError
from model.network.whisper import Whisper
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


def test_steps_are_timed_together_where_the_host_is_ahead_and_only_while_all_rows_are_there(monkeypatch) -> None:
    stages = Stages(tiny.transcriber(), tiny.speech(31.0), repeats=9, forced=12)
    monkeypatch.setattr(stages, "_at_once", 4)
    passed = iter([4.0, 8.0, 400.0])
    monkeypatch.setattr(stages, "_seconds", lambda work: (work(), next(passed))[1])
    assert stages.step(2) == 1.5  # of its 11 steps behind the prompt the last three are no four


def test_the_path_of_a_gpu_runs_without_one(monkeypatch, capsys) -> None:
    monkeypatch.setattr("benchmarks.machine.random_model.DIMENSIONS", {"small-random": tiny.DIMS})
    monkeypatch.setattr("benchmarks.stages._TOKENS", 3)
    arguments = ["--random", "small-random", "--device", "cpu", "--compute-type", "float32", "--cross-kv", "int8"]
    assert main([*arguments, "--rows", "1", "2", "--encode", "2", "--repeats", "1", "--threads", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["cross_kv"], result["decoder"], result["device"]) == ("int8", "torch", "cpu")
    assert set(result["encoder_s"]) == {"2"}
    assert result["card"]["product_per_s"] > 0
    assert set(result["step_s"]) == set(result["whole_s"]) == {"1", "2"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("run", [main, saturation.main])
def test_without_a_gpu_nothing_is_measured_on_one(run, capsys) -> None:
    assert run(["--random", "base", "--device", "cuda"]) == 2
    assert "no CUDA device here" in capsys.readouterr().err


def test_random_weights_are_whole_and_do_not_overflow() -> None:
    tensors = random_tensors(tiny.DIMS)
    model = Whisper.from_tensors(tiny.DIMS, tensors, name="large-v3")
    with torch.inference_mode():
        features = model.encode(torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(features).all()
    assert 0.1 < features.std() < 10.0
    assert all(torch.isfinite(tensor).all() and tensor.dtype == torch.float16 for tensor in tensors.values())


def test_what_random_weights_say_depends_on_what_is_heard() -> None:
    transcriber = random_transcriber("tiny", "cpu", ComputeOptions("float32"))
    tensors = random_tensors(transcriber.dims)
    assert not torch.equal(tensors["decoder.blocks.0.attn.query.weight"], tensors["decoder.blocks.0.attn.value.weight"])
    mel = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = transcriber.model.encode(mel).flatten(1)
        assert torch.cosine_similarity(one, other, dim=0) < 0.98
        model = transcriber.model
        inference = make_inference(model, n_windows=2, n_rows=2)
        inference.fill_windows(model.encode(mel), [0, 1])
        prompt = transcriber.tokenizer.sot_sequence("en", "transcribe")
        heard = [inference.prefill(prompt, row=slot, window=slot, keep=[len(prompt) - 1])[0] for slot in (0, 1)]
    assert (heard[0] - heard[1]).abs().max() > 0.2 * heard[0].std()
    assert len(heard[0].topk(5).values.unique()) == 5


def test_nothing_is_learned_of_the_padding_of_random_weights() -> None:
    assert random_transcriber("tiny", "cpu", ComputeOptions("int8")).model.encoder_context == "full"


def test_a_size_that_was_never_published_is_refused() -> None:
    with pytest.raises(WeightsError, match="huge is no published size"):
        random_transcriber("huge", "cpu", ComputeOptions("float32"))
    assert "large-v3" in DIMENSIONS
