"""Arguments as openai-whisper's command is given them, turned into those of `model.arguments`.

Its options have `_` where ours have `-`, and flags that are followed by True or False. What only differs in name is a
second name in `model.arguments`; what means nothing here is left as it is, and refused there.
Source: openai/whisper 20250625, whisper/transcribe.py `cli`.
"""

from collections.abc import Sequence

_FLAGS = {
    "--word-timestamps": (["--word-timestamps"], []),
    "--highlight-words": (["--highlight-words"], []),
    "--carry-initial-prompt": (["--carry-initial-prompt"], []),
    "--condition-on-previous-text": ([], ["--no-previous-text"]),
    "--fp16": (["--compute-type=float16"], ["--compute-type=float32"]),
    "--verbose": (["--verbose"], []),
}
"""What stands for a flag with True and with False."""


def as_ours(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ours in the place of openai-whisper's."""
    ours: list[str] = []
    left = list(arguments)
    while left and left[0] != "--":
        name, equals, value = left.pop(0).partition("=")
        if not name.startswith("--"):
            ours.append(name + equals + value)
            continue
        name = name.replace("_", "-")
        if name in _FLAGS and not equals and left and left[0] in ("True", "False"):
            equals, value = "=", left.pop(0)
        if name in _FLAGS and value in ("True", "False"):
            ours += _FLAGS[name][value == "False"]
        else:
            ours.append(name + equals + value)
    return ours + left
