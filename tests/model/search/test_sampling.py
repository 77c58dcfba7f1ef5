import torch
from torch.distributions import Categorical

from model.search.sampling import row_seed, sample


def _logits(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 500, generator=torch.Generator().manual_seed(1)) * 3


def test_temperature_zero_takes_the_most_probable_token_with_its_logprob() -> None:
    logits = _logits()
    tokens, logprobs = sample(logits, [0.0, 0.0, 0.0], [None, None, None])
    assert tokens == logits.argmax(-1).tolist()
    expected = logits.log_softmax(-1).amax(-1)
    torch.testing.assert_close(torch.tensor(logprobs, dtype=torch.float32), expected)


def test_a_draw_equals_the_reference_on_the_same_seed() -> None:
    logits = _logits(1)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        (token,), (logprob,) = sample(logits, [0.7], [generator])
        torch.manual_seed(seed)
        assert token == Categorical(logits=logits / 0.7).sample().item()
        assert abs(logprob - logits.log_softmax(-1)[0, token].item()) < 1e-5


def test_a_row_draws_the_same_beside_others() -> None:
    logits = _logits()
    alone = sample(logits[1:2], [0.9], [torch.Generator().manual_seed(5)])
    among = sample(logits, [0.0, 0.9, 0.5], [None, torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)])
    assert among[0][1] == alone[0][0]


def test_seeds_differ_by_request_window_and_rung() -> None:
    seeds = {row_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert row_seed(1, 2, 3) == row_seed(1, 2, 3)


def test_a_draw_at_hardly_any_temperature_is_the_most_probable_token() -> None:
    logits = _logits() * 1000.0
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    tokens, _ = sample(logits, [1e-40, 1e-30, 5e-324], generators)
    assert tokens == logits.argmax(-1).tolist()
