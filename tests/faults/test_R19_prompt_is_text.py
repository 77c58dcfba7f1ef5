"""R19: whatever a user writes, `encode` gives ordinary tokens: never a special one, never an exception."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.tokenizer import Tokenizer, get_tokenizer

TOKENIZERS = [get_tokenizer(DIMENSIONS[name]) for name in ("base", "large-v3", "base.en")]

SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|en|>", "<|notimestamps|>", "<|0.00|>", "<|"]
any_string = st.text(st.characters(), max_size=40) | st.text(st.characters(categories=["Cs", "Cc", "Zs"]), max_size=40)
hostile = st.lists(st.sampled_from(SPECIALS) | any_string, max_size=8).map("".join)

MEGABYTE = 1_000_000


def check(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.eot for token in tokens)
    # What a lone surrogate, which no UTF-8 can hold, turns into; paired ones become their character.
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokens) == plain


@given(hostile)
@example("<|endoftext|>")
@example("<|startoftranscript|><|en|><|transcribe|><|0.00|>")
@example("\ud800")
@example("\udc00\ud800<|endoftext|>")
@example("\0<|endoftext|>\0")
@settings(max_examples=300, deadline=None)
def test_R19_a_prompt_never_becomes_a_special_token(text: str) -> None:
    for tokenizer in TOKENIZERS:
        check(tokenizer, text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * MEGABYTE, id="one word"),
        pytest.param(" " * MEGABYTE, id="blanks"),
        pytest.param("\n" * MEGABYTE, id="newlines"),
        pytest.param(" \n" * (MEGABYTE // 2) + "end", id="blanks, then a word"),
        pytest.param(("\u3000" * 99_999 + "x") * 10, id="long runs of wide blanks"),
        pytest.param("<|endoftext|>" * (MEGABYTE // 13), id="specials"),
        pytest.param("\ud800" * MEGABYTE, id="surrogates"),
        pytest.param("\0" * MEGABYTE, id="NUL"),
    ],
)
def test_R19_a_megabyte_of_anything_is_encoded(text: str) -> None:
    check(TOKENIZERS[0], text)


def test_R19_ordinary_runs_of_blanks_are_not_cut() -> None:
    """Cutting changes tokens, so it must not touch a run that tiktoken takes whole."""
    for tokenizer in TOKENIZERS:
        for text in (" " * 65_536, "word" + "\n" * 65_535 + " word"):
            assert tokenizer.encode(text) == tokenizer._encoding.encode_ordinary(text)
