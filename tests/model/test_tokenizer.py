import subprocess
import sys
import time
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.errors import OptionError
from model.language import LANGUAGES
from model.tokenizer import Tokenizer, get_tokenizer

BASE, LARGE, ENGLISH = (get_tokenizer(DIMENSIONS[name]) for name in ("base", "large-v3", "base.en"))
ALL = {"base": BASE, "large-v3": LARGE, "base.en": ENGLISH}
BYTES = {BASE._encoding.decode_single_token_bytes(token)[0]: token for token in range(256)}
"""The first 256 tokens are the 256 bytes."""

FIELDS = ("eot", "sot", "translate", "transcribe", "sot_lm", "sot_prev", "no_speech", "no_timestamps")
FIELDS += ("timestamp_begin", "non_speech_tokens")

TEXTS = [
    "",
    " ",
    " And so, my fellow Americans, ask not what your country can do for you.",
    "It's 3.14159 o'clock -- they'll've said \"no\"; (sigh) [MUSIC] ♪♪ la la ♪",
    " Der Größenwahn überfällt Straßenbahnschaffner im Übermaß.",
    " L'élève a dû où ça gêne, à l'œil nu. ¿Qué? ¡Ñandú!",
    " Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "私はガラスを食べられます。それは私を傷つけません。",
    "我能吞下玻璃而不伤身体。你好，世界！",
    "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요",
    " لغة عربية جميلة، أليس كذلك؟",
    " עברית היא שפה יפה",
    "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ",
    " हिन्दी में बोलिए और सुनिए।",
    " தமிழ் ஒரு செம்மொழி. বাংলা ভাষা. ქართული ენა. Հայերեն",
    "မြန်မာဘာသာ ລາວ ខ្មែរ བོད་ཡིག አማርኛ",
    " Emoji 😀👩‍👩‍👧‍👦🇩🇪 and ﷽ and e\u0301 combining",
    "tabs\tand\nnewlines\r\n\n  and   runs   of spaces   ",
    "<|endoftext|><|startoftranscript|><|en|><|0.00|>",
    "NUL \0 and \x1b[31m controls \x7f \x85 \u2028",
]


def reference(name: str, **options: Any) -> Any:
    tokenizer = pytest.importorskip("whisper.tokenizer")
    dims = DIMENSIONS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the reference leaves its vocabulary file open
        return tokenizer.get_tokenizer(dims.is_multilingual, num_languages=dims.num_languages, **options)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ALL)
def test_special_ids_are_the_references(name: str) -> None:
    ours, theirs = ALL[name], reference(name)
    for field in FIELDS:
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.n_vocab == theirs.encoding.n_vocab == DIMENSIONS[name].n_vocab
    assert ours.blank_tokens == tuple(theirs.encode(" "))
    every = list(range(ours.n_vocab))
    assert [ours.decode_with_timestamps([t]) for t in every] == [theirs.decode_with_timestamps([t]) for t in every]


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["base", "large-v3"])
def test_languages_and_openings_are_the_references(name: str) -> None:
    ours = ALL[name]
    theirs = reference(name)
    assert ours.language_tokens == tuple(sorted(theirs.all_language_tokens))
    assert ours.language_codes == tuple(LANGUAGES)[: DIMENSIONS[name].num_languages]
    for code in ours.language_codes:
        assert ours.language_token(code) == theirs.to_language_token(code)
        for task in ("transcribe", "translate"):
            assert ours.sot_sequence(code, task) == reference(name, language=code, task=task).sot_sequence


@pytest.mark.oracle
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", TEXTS)
def test_text_goes_both_ways_as_in_the_reference(name: str, text: str) -> None:
    ours, theirs = ALL[name], reference(name)
    tokens = ours.encode(text)
    assert tokens == theirs.encode(text, disallowed_special=())
    assert ours.decode(tokens) == theirs.decode(tokens) == text
    timed = [ours.sot, ours.timestamp_begin, *tokens, ours.timestamp_begin + 54, ours.eot]
    assert ours.decode(timed) == theirs.decode(timed)
    assert ours.decode_with_timestamps(timed) == theirs.decode_with_timestamps(timed)


@pytest.mark.oracle
@pytest.mark.parametrize("language", ["en", "ko", "zh", "ja", "th", "lo", "my", "yue"])
@pytest.mark.parametrize("text", TEXTS)
def test_words_are_the_references(language: str, text: str) -> None:
    timed = [LARGE.timestamp_begin, *LARGE.encode(text), LARGE.timestamp_begin + 54, LARGE.eot]
    theirs = reference("large-v3", language=language).split_to_word_tokens(timed)
    assert LARGE.split_to_word_tokens(timed, language) == theirs


@given(st.lists(st.integers(0, BASE.n_vocab - 1), max_size=60), st.sampled_from(["en", "ja", None]))
def test_words_lose_nothing_of_any_tokens(tokens: list[int], language: str | None) -> None:
    words, word_tokens = BASE.split_to_word_tokens(tokens, language)
    assert [token for ids in word_tokens for token in ids] == tokens
    assert "".join(words) == BASE.decode_with_timestamps(tokens)
    assert all(words)


@given(st.lists(st.integers(0, 255), max_size=12))
def test_words_lose_nothing_of_any_bytes(values: list[int]) -> None:
    """Every byte is a token of its own, so any UTF-8 error can be put together."""
    tokens = [BYTES[value] for value in values]
    words, word_tokens = BASE.split_to_word_tokens(tokens, "zh")
    assert [token for ids in word_tokens for token in ids] == tokens
    assert "".join(words) == bytes(values).decode("utf-8", errors="replace")
    assert all(len(word) == 1 for word in words)


def test_words_of_half_characters_stay_together() -> None:
    tokens = BASE.encode(" 🦄🦄")
    assert len(tokens) > 3
    words, word_tokens = BASE.split_to_word_tokens(tokens, "zh")
    assert words[-1] == "🦄"
    assert all("\ufffd" not in word for word in words)
    assert len(words) == len(word_tokens) < len(tokens)


def test_an_english_model_opens_with_the_start_alone() -> None:
    assert ENGLISH.sot_sequence("de", "translate") == ENGLISH.sot_sequence(None, "transcribe") == (ENGLISH.sot,)
    assert not ENGLISH.multilingual
    assert ENGLISH.language_codes == ENGLISH.language_tokens == ()


def test_no_language_leaves_the_language_out() -> None:
    assert BASE.sot_sequence(None, "translate") == (BASE.sot, BASE.translate)


@pytest.mark.parametrize(("tokenizer", "code"), [(BASE, "yue"), (BASE, "xx"), (BASE, "English"), (ENGLISH, "en")])
def test_a_language_the_model_lacks_is_refused(tokenizer: Tokenizer, code: str) -> None:
    with pytest.raises(OptionError) as refused:
        tokenizer.language_token(code)
    assert refused.value.param == "language"


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(OptionError) as refused:
        BASE.sot_sequence("en", "summarise")
    assert refused.value.param == "task"


@pytest.mark.parametrize("count", [0, 101])
def test_a_vocabulary_of_too_few_or_too_many_languages_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="languages"):
        Tokenizer(multilingual=True, num_languages=count)


def test_a_vocabulary_may_name_one_language() -> None:
    assert Tokenizer(multilingual=True, num_languages=1).language_codes == ("en",)


@given(st.text())
@settings(max_examples=200)
def test_decoding_gives_the_text_back(text: str) -> None:
    for tokenizer in (BASE, ENGLISH):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_text_with_more_blanks_than_a_regex_bears_is_a_text() -> None:
    text = "a" + " " * 1_200_000 + "b" + "\n" * 70_000 + "c"
    assert BASE.decode(BASE.encode(text)) == text


def test_it_loads_quickly_and_needs_no_torch() -> None:
    started = time.thread_time()  # not what others of this machine or process take meanwhile
    get_tokenizer(DIMENSIONS["large-v3"])
    assert time.thread_time() - started < 1.0
    code = "import sys, model.tokenizer, model.language; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
