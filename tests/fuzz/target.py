"""One fuzzed target in a process, led by its coverage: `python -m tests.fuzz.target form|audio FOLDER|FILE [-option]`.

Started by `tests.fuzz`; a folder is grown, a file is tried once. Options are libFuzzer's.
"""

import importlib
import sys

import atheris

INSTRUMENTED = {
    "form": ["service.http.multipart", "python_multipart"],
    "audio": ["model.audio"],
}
"""What is watched, by target."""


def main() -> None:
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup([sys.argv[0], *arguments], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
