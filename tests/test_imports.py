"""Imports point one way (design.md, "The house"); modules stay short and have a name."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retinanet"
ORDER = (
    {
        *("errors", "other_names", "ending", "files", "yaml_reader"),
        *("structures", "boxes", "schema", "config", "parsing"),
    },
    {"model", "losses", "data", "evaluation"},
    {"engine"},
    {"foreign"},
    {"inference", "diagnostics", "lab", "convert"},
    {"cli"},
    {"__main__"},
)
STRANGERS = ORDER[1]
"""Rooms that never import each other."""
# Within the foundation, config reads YAML into the schema, and everything may raise the errors.
FOUNDATION = (
    *("errors", "other_names", "ending", "files", "yaml_reader"),
    *("structures", "boxes", "schema", "config", "parsing"),
)
MAX_LINES = 400
Edge = tuple[str, str]


def floor(room: str) -> int:
    """Return the height of a room: it may import from lower floors."""
    return next(level for level, rooms in enumerate(ORDER) if room in rooms)


def is_backward(edge: Edge) -> bool:
    """Whether an import goes against the order."""
    source, target = edge
    if source == target:
        return False
    if floor(source) == 0 and floor(target) == 0:
        return FOUNDATION.index(source) < FOUNDATION.index(target)
    if source in STRANGERS and target in STRANGERS:
        return True
    return floor(source) < floor(target)


def imported_rooms(source: str, rooms: set[str]) -> set[str]:
    """Return the rooms of the package that a module's text imports, at its top or deep inside."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts = [name.split(".") for name in names]
        found |= {part[1] for part in parts if part[0] == "retinanet" and len(part) > 1}
    return found & rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if path != PACKAGE / "__init__.py"]


def edges() -> dict[Edge, Path]:
    """Return every import between rooms, with a module that holds it."""
    rooms = {room_of(path) for path in modules()}
    return {
        (room_of(path), target): path
        for path in modules()
        for target in imported_rooms(path.read_text(encoding="utf-8"), rooms)
    }


def test_every_room_has_its_floor() -> None:
    known = set().union(*ORDER)
    assert {room_of(path) for path in modules()} <= known, "add the room to design.md and to ORDER"


def test_no_import_points_backward() -> None:
    found = edges()
    assert ("engine", "data") in found, "the walk finds the imports that there are"
    assert ("cli", "engine") in found
    assert {edge: str(path) for edge, path in found.items() if is_backward(edge)} == {}


@pytest.mark.parametrize(
    "edge",
    [
        ("data", "model"),
        ("losses", "evaluation"),
        ("model", "engine"),
        ("engine", "inference"),
        ("config", "data"),
        ("boxes", "config"),
        ("errors", "config"),
        ("engine", "cli"),
        ("convert", "cli"),
    ],
)
def test_a_backward_import_would_be_caught(edge: Edge) -> None:
    assert is_backward(edge)


@pytest.mark.parametrize(
    "edge",
    [
        ("engine", "data"),
        ("inference", "model"),
        ("losses", "boxes"),
        ("config", "yaml_reader"),
        ("yaml_reader", "errors"),
        ("inference", "inference"),
        ("cli", "diagnostics"),
    ],
)
def test_a_forward_import_is_fine(edge: Edge) -> None:
    assert not is_backward(edge)


@pytest.mark.parametrize(
    "text",
    [
        "import retinanet.model.fpn",
        "import retinanet.model.fpn as fpn",
        "from retinanet.model.fpn import FeaturePyramid",
        "from retinanet.model import fpn",
        "from retinanet import model",
        "def f():\n    from retinanet.model.fpn import FeaturePyramid",
        "if TYPE_CHECKING:\n    import retinanet.model",
    ],
)
def test_every_way_to_import_is_seen(text: str) -> None:
    assert imported_rooms(text, {"model", "data"}) == {"model"}


def test_other_packages_are_not_seen() -> None:
    assert imported_rooms("import torch.model\nfrom retinanet import __version__", {"model"}) == (
        set()
    )


def test_no_module_is_long_or_named_after_nothing() -> None:
    for path in modules():
        name = str(path.relative_to(PACKAGE))
        assert path.stem not in ("utils", "util", "misc", "helpers", "common"), name
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{name} has {lines} lines"
