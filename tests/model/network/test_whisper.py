import pytest
import torch

from model.errors import WeightsError
from model.network.cache import KVCache, PrefillView, StepView
from model.network.whisper import Whisper
from tests import tiny

TOKENS = [50_258, 50_259, 50_359, 50_364, 1_000, 2_000, 3_000, 40_000]


def _mel(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 80, 3000, generator=torch.Generator().manual_seed(3))


def _model() -> Whisper:
    return Whisper.from_tensors(tiny.DIMS, tiny.tensors())


@pytest.mark.oracle
@torch.inference_mode()
def test_encoder_and_decoder_equal_the_reference() -> None:
    from model.weights import Weights
    from tests.oracle.reference import reference_model

    reference = reference_model(Weights(tiny.DIMS, tiny.tensors(), "tiny-random", None))
    model, mel = _model(), _mel()
    features, expected = model.encoder(mel), reference.encoder(mel)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)

    cache = KVCache(tiny.DIMS, n_windows=2, n_rows=2, device=model.device, dtype=model.dtype)
    cache.fill_windows(model.decoder, features, [0, 1])
    wanted = reference.decoder(torch.tensor([TOKENS]), expected[1:])[0]
    prompt = torch.tensor(TOKENS[:5])
    hidden = model.decoder(prompt, torch.arange(5), PrefillView(cache, row=0, windows=[1]))
    torch.testing.assert_close(model.decoder.logits(hidden), wanted[:5], atol=1e-3, rtol=1e-3)
    for position, token in enumerate(TOKENS[5:], start=5):
        view = StepView(cache, lengths=[position], windows=[1])
        logits = model.decoder.logits(model.decoder(torch.tensor([token]), view.positions, view))
        torch.testing.assert_close(logits[0], wanted[position], atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_rows_of_unequal_length_step_as_they_do_alone() -> None:
    model = _model()
    cache = KVCache(tiny.DIMS, n_windows=3, n_rows=4, device=model.device, dtype=model.dtype)
    cache.fill_windows(model.decoder, model.encoder(_mel(3)), [2, 0, 1])
    prompts = [TOKENS[:3], TOKENS[:7], TOKENS[:2], TOKENS[:5]]
    windows = [1, 1, 0, 2]
    for row, (prompt, window) in enumerate(zip(prompts, windows, strict=True)):
        view = PrefillView(cache, row=row, windows=[window])
        model.decoder(torch.tensor(prompt), torch.arange(len(prompt)), view)
    step = StepView(cache, lengths=[len(prompt) for prompt in prompts], windows=windows)
    together = model.decoder(torch.tensor([11, 12, 13, 14]), step.positions, step)
    for row, (prompt, window) in enumerate(zip(prompts, windows, strict=True)):
        tokens = torch.tensor([*prompt, 11 + row])
        alone = model.decoder(tokens, torch.arange(len(tokens)), PrefillView(cache, row=3, windows=[window]))
        torch.testing.assert_close(together[row], alone[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decoder.ln.weight"), "decoder.ln.weight is missing"),
        (lambda t: t.pop("decoder.blocks.1.attn.key.weight"), "decoder.blocks.1.attn.key.weight is missing"),
        (lambda t: t.update({"decoder.extra": torch.zeros(1)}), "decoder.extra is unknown"),
        (lambda t: t.update({"encoder.conv1.bias": torch.zeros(7)}), r"encoder.conv1.bias is \(7,\), not \(32,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, message) -> None:
    tensors = tiny.tensors()
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        Whisper.from_tensors(tiny.DIMS, tensors)
