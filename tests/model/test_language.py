import pytest

from model.errors import OptionError
from model.language import ALIASES, LANGUAGES, canonical_language


@pytest.mark.oracle
def test_languages_and_aliases_are_the_references_in_order() -> None:
    reference = pytest.importorskip("whisper.tokenizer")
    assert list(LANGUAGES.items()) == list(reference.LANGUAGES.items())
    for name, code in reference.TO_LANGUAGE_CODE.items():
        assert canonical_language(name) == code


def test_there_are_a_hundred_languages_and_cantonese_is_last() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES.values())) == 100
    assert tuple(LANGUAGES)[-1] == "yue"


@pytest.mark.parametrize(
    ("given", "code"),
    [("ko", "ko"), ("KO", "ko"), ("Korean", "ko"), (" haitian creole ", "ht"), ("Flemish", "nl"), ("HAW", "haw")],
)
def test_code_name_and_alias_in_any_case_give_the_code(given: str, code: str) -> None:
    assert canonical_language(given) == code


@pytest.mark.parametrize("given", ["", "auto", "klingon", "en-US", "e\0n", "\ud800", "x" * 100_000])
def test_anything_else_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(OptionError) as refused:
        canonical_language(given)
    assert refused.value.param == "language"
    assert not given or given not in str(refused.value)


def test_aliases_name_known_languages_and_shadow_none() -> None:
    assert set(ALIASES.values()) <= set(LANGUAGES)
    assert not set(ALIASES) & (set(LANGUAGES) | set(LANGUAGES.values()))
