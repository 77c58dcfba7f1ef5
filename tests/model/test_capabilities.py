import pytest

from model.capabilities import can_translate, check_options
from model.dims import DIMENSIONS
from model.errors import OptionError
from model.options import TranscribeOptions
from tests import tiny

SNAPSHOT = "41f01f3fe87f28c78e2fbf8b568835947dd65ed9"
"""What Hugging Face's cache calls a folder."""


@pytest.mark.parametrize("size", DIMENSIONS)
def test_english_only_models_and_turbo_do_not_translate(size: str) -> None:
    assert can_translate(DIMENSIONS[size]) == (not size.endswith(".en") and size != "large-v3-turbo")


def test_what_a_model_can_do_does_not_depend_on_what_its_folder_is_called() -> None:
    options = TranscribeOptions(task="translate")
    model = tiny.transcriber().model
    assert check_options(options, "turbo", model) == options
    model.dims = DIMENSIONS["large-v3-turbo"]
    with pytest.raises(OptionError, match=f"model {SNAPSHOT} cannot translate"):
        check_options(options, SNAPSHOT, model)
