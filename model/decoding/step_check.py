"""Whether a GPU's steps may be captured, chosen on the device and taken beside the encoder: the choice behind
`cuda_graphs`.

Asked once, when a model is loaded and no slot allocated. What was never run on a card is not believed: a few short rows
go through both paths, the plain one, which is torch's operators alone, telling how far the fast one is off. Whoever
differs or raises is not used. What breaks the device itself, as an illegal access does, cannot be caught like that;
then `cuda_graphs=false` leaves the fast path alone.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from model.decoding.inference import PyTorchInference
from model.dims import N_FRAMES, ModelDimensions
from model.errors import OptionError
from model.gpu.beside import Beside, SideStream
from model.gpu.cuda import CudaBackend
from model.gpu.graphs import LONGEST_PROMPT, Backend
from model.gpu.split_check import choose_cross_attention
from model.network.whisper import TextDecoder, Whisper
from model.options import TranscribeOptions
from model.search.beam_selection import extend
from model.search.rules import Rules
from model.search.selection import Selection
from model.tokenizer import Tokenizer
from model.transfer import Fetched

CUDA_GRAPHS = ("auto", "true", "false")
_FARTHEST = 0.2
"""Difference from which the fast path is not trusted, in standard deviations of a row's logits. In 16 bits two ways to
compute the same differ by a few hundredths; another row's audio or a token that was not fed makes whole ones."""
_WINDOWS = (0, 1, 0)
"""The window of each row."""
_COURSE = (1, 2, 3, 3, 2, 3)
"""Rows of each step."""


def settle_steps(model: Whisper, tokenizer: Tokenizer, *, cross_attention: str, cuda_graphs: str) -> dict[str, str]:
    """Set how a loaded model steps; by setting, why it has not what `auto` would have had. Raises `OptionError`.

    Try fused steps first, then the attention kernel alone, then torch; each is tried with steps of the model's size,
    since the kernel's own check is small. `fused_steps` is not a setting: without them only time is lost.
    """
    reasons: dict[str, str | None] = {}
    model.cross_attention, reasons["cross_attention"] = choose_cross_attention(cross_attention, model)
    if model.cross_attention == "triton" and cuda_graphs in ("auto", "true"):
        model.fuses_steps = True
        model.captures_steps, reasons["fused_steps"] = choose_steps("auto", model, tokenizer)
        model.fuses_steps = model.captures_steps
    if not model.fuses_steps:
        model.captures_steps, reasons["cuda_graphs"] = choose_steps(cuda_graphs, model, tokenizer)
    if reasons.get("cuda_graphs") is not None and (cross_attention, model.cross_attention) == ("auto", "triton"):
        model.cross_attention, reasons["cross_attention"] = "torch", reasons["cuda_graphs"]
        model.captures_steps, reasons["cuda_graphs"] = choose_steps(cuda_graphs, model, tokenizer)
    return {setting: reason for setting, reason in reasons.items() if reason is not None}


def choose_steps(name: str, model: Whisper, tokenizer: Tokenizer) -> tuple[bool, str | None]:
    """Whether steps are captured, and why not where `auto` would have had it so. `OptionError` where they must and
    cannot.
    """
    if name not in CUDA_GRAPHS:
        raise OptionError("cuda_graphs", f"cuda graphs {name!r} is not one of {', '.join(CUDA_GRAPHS)}")
    on_gpu = model.device.type == "cuda"
    if name == "false" or (name == "auto" and not on_gpu):
        return False, None
    reason = reason_against(model, tokenizer) if on_gpu else "it is no GPU"
    if reason is not None and name == "true":
        raise OptionError("cuda_graphs", f"steps cannot be captured on {model.device}: {reason}")
    return reason is None, reason


def reason_against(model: Whisper, tokenizer: Tokenizer) -> str | None:
    """Why the fast path cannot be used for a model on its GPU; None where it can."""
    try:
        farthest = deviation(model, tokenizer, CudaBackend(model.device), SideStream(model.device))
        if not choices_agree(model.dims, tokenizer, model.device, in_triton=model.fuses_steps):
            return "tokens chosen on the device are not those chosen on the host"
    except Exception as error:  # whatever is missing or too old there: the plain path is known to work
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if farthest < _FARTHEST else f"its answers are off by {farthest:.2g}"


@torch.inference_mode()
def deviation(model: Whisper, tokenizer: Tokenizer, backend: Backend, beside: Beside) -> float:
    """How far rows that take the fast path stray from what the plain one believes; infinite for no number.

    The plain path is fed the tokens that the fast one chose, and says how much less probable than its own choice each
    of them is, and how far off its log-probability.
    """
    if not isinstance(model.decoder, TextDecoder):
        raise TypeError("only steps of torch's operators can be captured")
    n_windows, n_rows = max(_WINDOWS) + 1, LONGEST_PROMPT * len(_WINDOWS)
    plain = PyTorchInference(model, n_windows=n_windows, n_rows=n_rows, cross_attention="torch")
    fast = PyTorchInference(model, n_windows=n_windows, n_rows=n_rows, backend=backend)
    noise = torch.randn(n_windows, model.dims.n_mels, N_FRAMES, generator=torch.Generator().manual_seed(0))
    mel, slots = noise.to(model.device, model.dtype), range(n_windows)
    plain.fill_windows(model.encode(mel), slots)
    _, ticket = beside.run(lambda: fast.fill_windows(model.encode(mel), slots))
    ticket.join()
    rows = _Rows(model, tokenizer)
    farthest = rows.begin(plain, fast)
    for n in _COURSE:
        farthest = max(farthest, rows.step(plain, fast, n))
    return farthest


class _Rows:
    """A few rows under way in two inferences at once."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer) -> None:
        options = TranscribeOptions(without_timestamps=True)  # one rounding more or less must not change the grammar
        self._rules = Rules(model.dims, tokenizer, model.device)
        self._suppressed = self._rules.suppressed(options)
        self._selection = Selection(model.dims, tokenizer, self._rules, n_rows=len(_WINDOWS), device=model.device)
        for home in range(len(_WINDOWS)):
            self._selection.begin(home, self._suppressed, temperature=0.0, seed=None, first_to=None)
        self._prompt = (*tokenizer.sot_sequence("en", "transcribe"), tokenizer.no_timestamps)
        self._said: list[list[int]] = [[] for _ in _WINDOWS]

    def begin(self, plain: PyTorchInference, fast: PyTorchInference) -> float:
        """The prompts and the first tokens; how far they are off."""
        n = len(_WINDOWS)
        prompts, keep = [self._prompt] * n, [(len(self._prompt) - 1,)] * n
        wanted, logits = (
            inference.prefill_many(prompts, row=0, windows=_WINDOWS, keep=keep)[:, 0] for inference in (plain, fast)
        )
        chosen = self._selection.choose(logits, self._selection.rows(range(n), [0] * n), drawing=False)
        return self._compare(wanted, chosen)

    def step(self, plain: PyTorchInference, fast: PyTorchInference, n: int) -> float:
        """A step of the first n rows, on a clean copy of what they have said; how far it is off."""
        said = self._said[:n]
        lengths = [len(self._prompt) + len(tokens) - 1 for tokens in said]
        chosen = fast.advance(
            self._selection,
            homes=range(n),
            counts=[len(tokens) for tokens in said],
            lengths=lengths,
            windows=_WINDOWS[:n],
            drawing=False,
        )
        wanted = plain.step([tokens[-1] for tokens in said], lengths=lengths, windows=_WINDOWS[:n])
        return self._compare(wanted, chosen)

    def _compare(self, wanted: Tensor, chosen: Tensor) -> float:
        tokens, logprobs = Fetched(chosen).read()
        for said, token in zip(self._said, tokens.tolist(), strict=False):
            if not 0 <= token < wanted.shape[1]:  # and no number is in no range
                raise ValueError(f"a row said {token}, which is no token")
            said.append(int(token))
        logits = wanted.cpu()
        spread = logits.std(-1)
        self._rules.suppress(wanted, [self._suppressed] * len(wanted))
        masked = wanted.cpu()
        own = masked.gather(1, tokens.long()[:, None])[:, 0]
        off = torch.maximum(masked.amax(-1) - own, (own - masked.logsumexp(-1) - logprobs).abs())
        return float((off / spread).nan_to_num(nan=torch.inf).max())


@torch.inference_mode()
def choices_agree(
    dims: ModelDimensions, tokenizer: Tokenizer, device: torch.device, *, in_triton: bool = False
) -> bool:
    """Whether the grammar, the draws and the beams of `model.search` are on a device what they are on the host.

    `in_triton`: those of `model.gpu.greedy_choice` as well, which draws nothing.
    """
    generator = torch.Generator().manual_seed(0)
    # Steep: where all tokens are about as probable, a draw falls now and then so near to the border of two of them that
    # the last bit of a sum decides.
    every = [torch.randn(2, dims.n_vocab, generator=generator) * 10 for _ in range(4)]
    choose, host = partial(Selection.choose, drawing=True), torch.device("cpu")
    wanted = _choices(dims, tokenizer, host, every, choose)
    if _choices(dims, tokenizer, device, every, choose) != wanted:
        return False
    if _choices(dims, tokenizer, device, every, _beams) != _choices(dims, tokenizer, host, every, _beams):
        return False
    if not in_triton:
        return True
    from model.gpu import greedy_choice

    greedy = _choices(dims, tokenizer, device, every, greedy_choice.choose)
    return [said[0] for said in greedy] == [said[0] for said in wanted]


def _beams(selection: Selection, logits: Tensor, rows: Tensor) -> Tensor:
    """What a window's two beams might say, and whose past each takes over."""
    candidates, sources = extend(selection, logits, rows, 2)
    return torch.cat((candidates[0].flatten(), sources))[None]


def _choices(
    dims: ModelDimensions,
    tokenizer: Tokenizer,
    device: torch.device,
    every: Sequence[Tensor],
    choose: Callable[[Selection, Tensor, Tensor], Tensor],
) -> list[list[float]]:
    """What two rows say, step by step; the second is one with draws, where there are any."""
    options, rules = TranscribeOptions(), Rules(dims, tokenizer, device)
    selection = Selection(dims, tokenizer, rules, n_rows=2, device=device)
    for home, temperature in enumerate((0.0, 0.7)):
        selection.begin(
            home,
            rules.suppressed(options),
            temperature=temperature,
            seed=1 if temperature else None,
            first_to=rules.first_time_to(options),
        )
    places = [selection.rows(range(2), [count] * 2) for count in range(len(every))]
    chosen = [choose(selection, x.to(device), p) for x, p in zip(every, places, strict=True)]
    return [one[0].tolist() for one in chosen]
