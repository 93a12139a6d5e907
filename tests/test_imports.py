"""The layers of docs/design.md: imports point one way, without cycles; modules stay short."""

import ast
import os
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retinanet"
SHARED = (
    *("errors", "option_aliases", "terminal", "stop_signals", "exit_codes", "files"),
    *("yaml_reader", "categories", "structures", "positives", "batch", "boxes", "drawing"),
    *("schema", "foreign_config", "config"),
)
"""Shared by every package; each may import those before it."""
PEERS = {"model", "assign", "losses", "data", "evaluation"}
"""They never import each other: code that uses both passes to one what it needs of the other."""
LAYERS: tuple[set[str], ...] = (
    *({name} for name in SHARED),
    PEERS,
    {"distributed", "convert"},
    {"checkpoints"},
    {"interop"},
    {"engine"},
    {"inference"},
    {"reports", "doctor"},
    {"replay", "benchmark"},
    {"lab"},
    {"api"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
"""Bottom first: a package imports from lower layers only, and from no other one of its own."""
MAX_LINES, MAX_MODULES = 400, 20
Edge = tuple[str, str]


def layer(package: str) -> int:
    return next(level for level, packages in enumerate(LAYERS) if package in packages)


def is_backward(edge: Edge) -> bool:
    """Whether an import goes up, or to another package of the same layer."""
    source, target = edge
    return source != target and layer(source) <= layer(target)


def modules() -> dict[str, Path]:
    """Return every module by its dotted name; an `__init__` has the name of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name and path.stat().st_size:
            found[name] = path
    return found


def imported(source: str, known: set[str]) -> set[str]:
    """Return the modules that a source text imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the package are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "retinanet":
                prefixes = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
                found |= set([name for name in prefixes if name in known][:1])
    return found


def graph() -> dict[str, set[str]]:
    """Return what each module imports."""
    paths = modules()
    return {
        name: imported(path.read_text(encoding="utf-8"), set(paths)) - {name}
        for name, path in paths.items()
    }


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return a cycle of imports for each place where a walk returns to where it was."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            found.append([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(edges.get(name, ())):
                walk(target, [*trail, name])
            done.add(name)

    for name in sorted(edges):
        walk(name, [])
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_its_layer() -> None:
    known = set().union(*LAYERS)
    assert {package_of(name) for name in modules()} <= known, (
        "add the package to docs/design.md, too"
    )


def test_no_import_points_backward() -> None:
    edges = {(name, target) for name, targets in graph().items() for target in targets}
    assert ("engine.train", "engine.step") in edges, "the walk finds real imports"
    assert ("commands.train", "engine.launch") in edges
    assert [e for e in sorted(edges) if is_backward((package_of(e[0]), package_of(e[1])))] == []


def test_the_design_shows_the_same_layers() -> None:
    text = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    text = " ".join(text[text.index("Imports point one way") :].split())
    line = text.partition("shared modules <- ")[2].partition(". ")[0]
    layers = [{name.strip(" `") for name in part.split(",")} for part in line.split(" <- ")]
    assert layers == [*LAYERS[len(SHARED) : -1]]


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert cycles(graph()) == []


def test_no_folders_of_a_package_import_each_other_in_a_cycle() -> None:
    """A folder of a package counts as one: engine.train <- engine.preflight <- engine.launch."""
    inside: dict[str, set[str]] = {}
    for name, targets in graph().items():
        own = ".".join(name.split(".")[:2])
        found = {".".join(target.split(".")[:2]) for target in targets} - {own}
        inside.setdefault(own, set()).update(found)
    assert cycles(inside) == []


def test_a_cycle_would_be_caught() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    "edge",
    [
        ("data", "model"),
        ("losses", "evaluation"),
        ("assign", "losses"),
        ("model", "engine"),
        ("checkpoints", "interop"),
        ("engine", "inference"),
        ("reports", "doctor"),
        ("config", "data"),
        ("boxes", "config"),
        ("errors", "config"),
        ("engine", "cli"),
        ("commands", "cli"),
    ],
)
def test_a_backward_import_would_be_caught(edge: Edge) -> None:
    assert is_backward(edge)


@pytest.mark.parametrize(
    "edge",
    [
        ("engine", "data"),
        ("engine", "interop"),
        ("inference", "checkpoints"),
        ("losses", "boxes"),
        ("config", "yaml_reader"),
        ("yaml_reader", "errors"),
        ("inference", "inference"),
        ("commands", "doctor"),
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
        "def f():\n    from retinanet.model.fpn import FeaturePyramid",
        "if TYPE_CHECKING:\n    import retinanet.model.fpn",
    ],
)
def test_every_way_to_import_is_seen(text: str) -> None:
    assert imported(text, {"model.fpn", "model.heads"}) == {"model.fpn"}


def test_other_packages_are_not_seen() -> None:
    text = "import torch.model.fpn\nfrom retinanet import __version__"
    assert imported(text, {"model.fpn"}) == set()


def test_no_module_is_long_or_has_a_vague_name() -> None:
    for name, path in modules().items():
        assert path.stem not in ("utils", "util", "misc", "helpers", "common"), name
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{name} has {lines} lines"


def test_no_folder_holds_too_many_modules() -> None:
    for folder, _, files in os.walk(PACKAGE):
        count = sum(file.endswith(".py") and file != "__init__.py" for file in files)
        assert count <= MAX_MODULES, f"{folder} has {count} modules"


def test_public_classes_have_names_of_their_own() -> None:
    """A name belongs to one class only."""
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
