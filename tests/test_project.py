"""The repository's promises about itself: documents that are true, and nothing that belongs to somebody's machine.

Reads tracked files only; needs a git checkout.
"""

import ast
import re
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import pytest

from deploy.readme import DOCUMENTS, rendered
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = "docs/failure-contract.md"
IDS = [f"R{number:02}" for number in range(1, 43)]


def tracked() -> list[str]:
    """Paths of every file under version control that exists."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def texts() -> dict[str, str]:
    """Tracked text files with their content."""
    found = {}
    for name in tracked():
        data = (ROOT / name).read_bytes()
        if b"\0" not in data[:8192] and not name.startswith("tests/audio/"):
            found[name] = data.decode()
    return found


def hits(pattern: str, names: str = r".*") -> list[str]:
    """Where a pattern occurs in tracked text files: `name:line`."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        for name, text in texts().items()
        if re.fullmatch(names, name)
        for match in re.finditer(pattern, text)
    ]


def contract_rows() -> dict[str, str]:
    """The last cell of every statement of the failure contract."""
    rows = re.findall(r"(?m)^\| (R\d\d) \| .+ \| (.+) \|$", (ROOT / CONTRACT).read_text())
    assert [row[0] for row in rows] == IDS
    return dict(rows)


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    assert hits(r"(?<![\w.-])/(?:work|farm|root|home|opt|Users)/\w") == []
    assert hits(r"/tmp/(?:w|bash_jobs)\b") == []


def test_no_file_names_a_package_registry() -> None:
    hosts = (
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "download." + "pytorch.org",
        "registry." + "npmjs",
        "deb." + "debian",
    )
    assert [hit for host in hosts for hit in hits(re.escape(host))] == []


def test_nothing_is_left_open() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"))
    assert hits(rf"\b(?:{marks})\b") == []
    assert hits(r"raise Not" + r"ImplementedError|\bNot" + r"ImplementedError\(", r".*\.py") == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        name
        for name in tracked()
        if re.fullmatch(r"(model|service|benchmarks|deploy)/.*\.py", name)
        and not ast.get_docstring(ast.parse((ROOT / name).read_text()))
    ]
    assert silent == []


def test_no_file_and_no_function_is_long() -> None:
    long = {}
    for name in filter(partial(re.fullmatch, r".*\.py"), tracked()):
        text = (ROOT / name).read_text()
        if text.count("\n") > (400 if name.startswith("tests/") else 260):
            long[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 45:
                    long[f"{name}: {node.name}"] = lines
    assert long == {}


def test_the_failure_contract_names_only_tests_that_exist() -> None:
    for statement, cell in contract_rows().items():
        named = re.findall(r"`(tests/[^`]+)`", cell)
        assert named or cell == "not yet", f"{statement}: {cell}"
        assert all((ROOT / name).is_file() for name in named), f"{statement}: {cell}"


def test_the_failure_contract_names_every_test_that_carries_an_id() -> None:
    rows = contract_rows()
    carrying = {
        (name, number)
        for name in tracked()
        if re.fullmatch(r"tests/.*/test_\w+\.py", name)
        for number in re.findall(r"\bdef test_r(\d\d)_", (ROOT / name).read_text())
        + re.findall(r"/test_R(\d\d)_", name)
    }
    assert carrying
    assert [(name, number) for name, number in sorted(carrying) if f"`{name}`" not in rows[f"R{number}"]] == []


def test_every_test_that_the_failure_contract_names_carries_the_id() -> None:
    without = [
        f"{statement}: {name}"
        for statement, cell in contract_rows().items()
        for name in re.findall(r"`(tests/[^`]+)`", cell)
        if f"/test_{statement}_" not in name and f"def test_{statement.lower()}_" not in (ROOT / name).read_text()
    ]
    assert without == []


def test_fault_tests_carry_the_id_of_their_statement() -> None:
    modules = [Path(name).name for name in tracked() if name.startswith("tests/faults/test_")]
    assert modules
    assert [name for name in modules if name[5:8] not in IDS] == []


def test_the_readme_names_the_two_commands_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"(?m)^make serve$", readme)
    assert re.search(r"(?m)^make test$", readme)
    linked = re.findall(r"\]\((?!https?://|#)([^)#]+)", readme)
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_as_the_code_writes_it(name) -> None:
    tracked()
    document = (ROOT / name).read_text()
    assert "written by make readme -->" in document
    assert rendered(document) == document, "run `make readme`"


def test_every_file_is_on_the_map_with_what_it_is_for() -> None:
    files = (ROOT / "docs/files.md").read_text()
    lines = files.split("```")[1].splitlines()[1:]
    assert "model/native/" in lines
    assert [line for line in lines if not line.endswith("/") and not re.fullmatch(r" *\S+ {2,}\S.*", line)] == []
    mirrored = re.findall(r"  ((?:model|service|deploy|benchmarks)/[\w/]+\.py)$", files, re.MULTILINE)
    assert mirrored
    assert [name for name in mirrored if not (ROOT / name).is_file()] == []


def test_every_module_of_the_service_has_its_side_of_the_process_boundary() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    sides = [contract["source_modules"] for contract in contracts if re.match("The HTTP|Audio|Model", contract["name"])]
    assert len(sides) == 3
    listed = [module for side in sides for module in side if module.startswith("service.")]
    present = {
        f"service.{Path(name).parts[1].removesuffix('.py')}" for name in tracked() if name.startswith("service/")
    }
    assert sorted(listed) == sorted(present - {"service.__init__", "service.py.typed"})


def test_unit_tests_stand_where_their_module_does() -> None:
    folders = {Path(name).parent for name in tracked() if re.match(r"tests/(model|service)/", name)}
    assert [str(folder) for folder in folders if not (ROOT / folder.relative_to("tests")).is_dir()] == []


def test_documents_link_only_to_files_that_exist() -> None:
    for name in filter(partial(re.fullmatch, r"(docs/.*|[A-Z]+)\.md"), tracked()):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_what_is_named_in_the_code_and_in_documents_exists() -> None:
    wrong = []
    for name in tracked():
        if not name.endswith((".py", ".md")) or name in ("CHANGELOG.md", "benchmarks/LOG.md"):  # of what was then
            continue
        text = (ROOT / name).read_text()
        for dotted in re.findall(
            r"`((?:model|service|benchmarks|deploy|tests)(?:\.\w+){2,}(?<!\.json))(?:\(\))?`", text
        ):
            module, rest = ROOT, dotted.split(".")
            while rest and ((module / rest[0]).is_dir() or (module / f"{rest[0]}.py").is_file()):
                module /= rest.pop(0)
            source = module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py"
            if rest and not re.search(rf"(?m)^(?:class |def |async def )?{rest[0]}\b", source.read_text()):
                wrong.append(f"{name}: {dotted}")
        paths = re.findall(r"`((?:model|service|benchmarks|deploy|tests|docs)/[\w./-]+\.(?:py|c|h|md|sh))`", text)
        wrong += [f"{name}: {path}" for path in paths if not (ROOT / path).exists()]
    assert wrong == []


def test_operations_names_only_metrics_and_settings_that_exist() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    for name in re.findall(r"`(whisper_\w+)", document):
        assert re.search(rf'"{name.removesuffix("_total")}"', code), name
    for name in re.findall(r"(WHISPER_[A-Z_]+[A-Z])", document + (ROOT / "README.md").read_text()):
        assert any(field.startswith(name.removeprefix("WHISPER_").lower()) for field in Settings.model_fields), name
