"""Writes what documents repeat of the code: the README's request fields and settings, and the map of files.

`make readme` writes them and `tests/test_project.py` compares them, so that none can drift from the code. A file's line
of the map is its own first sentence.
"""

import ast
import re
import subprocess
from pathlib import Path

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from service.http.fields import FIELDS
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "docs/files.md")
"""Those that hold generated parts."""
GIVEN = {
    ".ci/run": "What must pass before a change lands.",
    ".dockerignore": "What may enter the image's build.",
    ".gitignore": "What stays out of version control.",
    "CHANGELOG.md": "What changed, for users.",
    "CONTRIBUTING.md": "How to work on this project.",
    "LICENSE": "MIT.",
    "NOTICE": "Whose weights, vocabulary, recordings and schemas these are.",
    "deploy/grafana/": "The dashboard that deploy/dashboard.py writes, and how Grafana finds it and Prometheus.",
    "deploy/kubernetes/": "Kustomize: a base of two replicas, and variants for NVIDIA nodes and KEDA.",
    "docs/accuracy-languages.png": "Error rate by language, beside openai-whisper.",
    "docs/accuracy-noise.png": "Error rate in white noise and in babble, beside openai-whisper and faster-whisper.",
    "docs/metrics.svg": "Every panel of the dashboard, drawn from a run of the stack.",
    "model/assets/": "The two vocabularies of the reference and some seconds of speech, with their notice.",
    "pyproject.toml": "Dependencies and the settings of every tool, import contracts included.",
    "requirements/": "The locks: every dependency pinned, every file hashed; torch apart, for CPU and for CUDA.",
    "tests/deploy/keda-scaledobject.json": "KEDA's own schema of what deploy/kubernetes/keda asks for.",
    "docs/accuracy.md": "How often it errs, beside openai-whisper and faster-whisper: by language, by kind, in noise.",
    "docs/architecture.md": "How the parts belong together, and where Whisper's traps are.",
    "docs/failure-contract.md": "What is promised when something goes wrong: 42 statements, each with its test.",
    "docs/files.md": "This map.",
    "docs/operations.md": "Running it: sizes, limits, start and stop, balancers, Kubernetes, watching, every alert.",
    "docs/performance.md": "How fast it is, what makes it so, and what was tried.",
    "benchmarks/LOG.md": "Every measurement with its date, good or bad.",
    "tests/audio/": "Short real recordings in nine languages, with their texts and licences.",
}
"""Lines of files that hold none themselves or only a title, and of folders that need no more than one."""
LEFT_OUT = re.compile(r"README\.md|(.+/)?py\.typed|tests/(.+/)?__init__\.py")


def first_sentence(name: str) -> str:
    """What a file says that it is: its title, or the first sentence of its docstring or comment."""
    text = (ROOT / name).read_text()
    if name.endswith(".md"):
        title = re.search(r"(?m)^# (?:\d+\. )?(.+)", text)
        return title[1] if title else ""
    if name.endswith((".c", ".h")):
        comment = re.search(r"/\*(.+?)\*/", text, re.DOTALL)
        text = " ".join(line.strip(" *") for line in comment[1].splitlines()) if comment else ""
    elif not name.endswith(".py"):
        comment = re.search(r"(?m)^# .+(\n# .+)*", text)
        text = comment[0].replace("\n# ", " ").removeprefix("# ") if comment else ""
    elif docstring := ast.get_docstring(ast.parse(text)):
        text = " ".join(docstring.partition("\n\n")[0].split())
    else:
        mirrored = re.fullmatch(r"tests/(?:oracle/)?(.+/)test_(\w+)\.py", name)
        text = f"{mirrored[1]}{mirrored[2]}.py" if mirrored else ""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def file_map(names: list[str]) -> str:
    """One line for each file under its folder; the folders in `GIVEN` have one line in all."""
    lines: dict[str, str] = {}
    for name in names:
        given = next((key for key in GIVEN if name == key or (key[-1] == "/" and name.startswith(key))), None)
        if given or not LEFT_OUT.fullmatch(name):
            lines[given or name] = GIVEN[given] if given else first_sentence(name)
    folders: dict[str, list[tuple[str, str]]] = {}
    for name, line in sorted(lines.items()):
        folder, _, file = name.rstrip("/").rpartition("/")
        folders.setdefault(folder, []).append((file + "/" * name.endswith("/"), line))
    text = ""
    for folder, entries in sorted(folders.items()):
        text += f"{folder}/\n" if folder else ""
        width = max(len(file) for file, _ in entries)
        text += "".join(f"{'  ' if folder else ''}{file:{width}}  {line}".rstrip() + "\n" for file, line in entries)
    return f"```text\n{text}```"


def fields_table() -> str:
    """The form fields of a transcription."""
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for name, field in FIELDS.items():
        value = field.schema.get("default", "")
        default = str(value).lower() if isinstance(value, bool) else str(value)
        choices = [f"`{value}`" for value in field.schema.get("enum", ())]
        meaning = field.description + (f" One of {', '.join(choices)}." if choices else "")
        rows.append(f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(rows)


def _bounds(field: FieldInfo) -> str:
    words = []
    for rule in field.metadata:
        if isinstance(rule, Ge):
            words.append(f"≥ {rule.ge}")
        elif isinstance(rule, Gt):
            words.append(f"> {rule.gt}")
        elif isinstance(rule, Le):
            words.append(f"≤ {rule.le}")
    choices = getattr(field.annotation, "__args__", ()) if "Literal" in str(field.annotation) else ()
    return ", ".join(words) or " ".join(f"`{choice}`" for choice in choices)


def _default(field: FieldInfo) -> str:
    value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return "" if value in (None, "") else f"`{value}`"


def settings_table() -> str:
    """The settings, with their defaults and bounds."""
    rows = ["| variable | default | bounds | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`{PREFIX}{name.upper()}`", _default(field), _bounds(field), field.description)
        rows.append("| " + " | ".join(cell or "" for cell in cells) + " |")
    return "\n".join(rows)


def rendered(document: str) -> str:
    """The document with its generated parts new."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [name for name in listing.splitlines() if (ROOT / name).is_file()]
    for name, content in {"fields": fields_table(), "settings": settings_table(), "files": file_map(files)}.items():
        begin, end = f"<!-- {name}: written by make readme -->", f"<!-- end of {name} -->"
        if begin in document:
            before, _, rest = document.partition(begin)
            _, _, after = rest.partition(end)
            document = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    return document


if __name__ == "__main__":
    for path in (ROOT / name for name in DOCUMENTS):
        path.write_text(rendered(path.read_text()))
