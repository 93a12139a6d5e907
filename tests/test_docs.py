"""What the documents name is there."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = r"(?:retinanet|tests|scripts|tools|configs|docs)"
    named = set(re.findall(rf"(?<![\w/.-]){places}/[\w/.-]+\.(?:py|sh|yaml|md|sbatch)\b", text))
    linked = {link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if link}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert [link for link in sorted(linked) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_is_there(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
        for node in nodes:
            assert node.module is not None
            there = import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(there, alias.name)] == []


def test_the_design_names_every_room() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = [f"{path.parent.name}/" for path in (ROOT / "retinanet").glob("*/__init__.py")]
    rooms += [path.stem for path in (ROOT / "retinanet").glob("[a-z]*.py")]
    assert [room for room in sorted(rooms) if f"`{room}`" not in text] == []
