"""What the documents name exists, and every command line in them parses."""

import argparse
import ast
import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import retinanet
from retinanet.cli import COMMANDS
from retinanet.commands.arguments import command_parser
from retinanet.config import describe, find_config, load_config, override_config
from retinanet.errors import UserError
from retinanet.lab.variants import choose_variants
from retinanet.schema import Config

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MAX_WORDS, MAX_BYTES = 1000, 300_000
TORCHRUN = {"--standalone", "--nproc_per_node", "--nnodes", "--max-restarts", "--rdzv-endpoint"}
STARTS = ("retinanet ", "torchrun ", "scripts/", "python scripts/", "sbatch scripts/", "pip ")
SHELLS = ("", "sh", "bash", "console")
OPTION = re.compile(r"(?!section\.key=)[a-z]\w*(?:\.[a-z]\w*)+=(?!$)")
"""An option and its value: `train.lr=0.01`."""


class ParsedError(Exception):
    """Ends a command once its words are parsed; carries the parser and what it made of them."""


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# What a page names


def links(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {link for link in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in link}


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    places = r"(?:retinanet|tests|scripts|tools|configs|docs)"
    named = set(re.findall(rf"(?<![\w/.-]){places}/[\w/.-]+\.(?:py|sh|yaml|md|sbatch)\b", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for link in sorted(links(page)):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_what_a_page_imports_is_there(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                there = import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(there, alias.name)] == []
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "retinanet" or hasattr(retinanet, node.attr), node.attr


def test_the_design_names_every_package() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    names = [f"{path.parent.name}/" for path in (ROOT / "retinanet").glob("*/__init__.py")]
    names += [path.stem for path in (ROOT / "retinanet").glob("[a-z]*.py")]
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_the_map_of_the_code_names_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [f"{path.parent.name}/" for path in (ROOT / "retinanet").glob("*/__init__.py")]
    names += [path.name for path in (ROOT / "retinanet").glob("[a-z]*.py")]
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_the_index_links_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(pages - links(ROOT / "docs" / "README.md")) == []


def test_every_recipe_is_described() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_readme_is_short_and_has_a_picture() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert len(text.split()) <= MAX_WORDS
    figures = [link for link in links(readme) if Path(link).suffix in (".png", ".jpg")]
    assert figures
    for link in figures:
        assert 0 < (ROOT / link).stat().st_size < MAX_BYTES, link


# Command lines


def command_lines(text: str) -> list[str]:
    """Return the command lines of a page: of its code blocks, and whole ones inside sentences."""
    found = []
    fences = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
    blocks = [block for _, kind, block in fences.findall(text) if kind in SHELLS]
    prose = fences.sub("", text)
    blocks += re.findall(r"^\n((?: {4}.*\S.*\n)+)", prose, flags=re.MULTILINE)
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            words = re.sub(r"^([A-Z][A-Z_0-9]*=\S+ +)+", "", line.strip().removeprefix("$ "))
            found += [words] if words.startswith(STARTS) else []
    for span in re.findall(r"`([^`]+)`", prose):
        words = " ".join(span.split())
        is_line = words.startswith(STARTS) and words not in STARTS
        if is_line or re.fullmatch(rf"({OPTION.pattern}('[^']*'|\S+) ?)+", words):
            found.append(words)
    return list(dict.fromkeys(found))


def split_words(line: str) -> list[str]:
    """Return the words of a line up to a comment or pipe, without ellipses; one choice of a|b."""
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", "&&", ";", ">")]
    words = words[: ends[0]] if ends else words
    words = [word.partition("|")[0] for word in words if word not in ("...", "..", "…")]
    return ["1" if word == "N" else word for word in words]


def check_line(line: str) -> None:
    """Raise an exception if a command line has a wrong command, file, flag, option or value."""
    if " [" in line and not OPTION.match(line):
        check_synopsis(line)
        return
    first, *words = split_words(line)
    if first == "retinanet":
        check_command(words)
    elif first == "torchrun":
        place = next(i for i, word in enumerate([*words, "tools/"]) if word.startswith("tools/"))
        wrong = {word for word in words[:place] if word.startswith("-")} - TORCHRUN
        assert not wrong, f"torchrun {wrong}"
        if place < len(words):
            assert (ROOT / words[place]).is_file(), words[place]
            check_command([Path(words[place]).stem, *words[place + 1 :]])
    elif first == "pip":
        extras = {name for word in words for name in re.findall(r"\.\[(.+)\]", word)}
        known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert [name for name in extras if f"\n{name} = [" not in known] == []
    elif OPTION.match(first):
        override_config(Config(), [first, *words])
    else:
        check_script(words[0] if first in ("python", "sbatch") else first, words)


def check_script(script: str, words: list[str]) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [flag for flag in flags if not re.search(rf"{flag}\b", text)] == [], script
    override_config(Config(), [word for word in words if OPTION.match(word)])


def check_synopsis(line: str) -> None:
    """Check the command and the flags of a line such as `retinanet check CONFIG [--fix OUT]`."""
    first, command, *rest = line.split()
    assert first == "retinanet"
    assert command in COMMANDS, f"there is no command {command}"
    sub = [word for word in rest[:1] if re.fullmatch("[a-z]+", word)]
    parser, _ = parse([command, *sub], values=False)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert [flag for flag in re.findall(r"(?<!\S)\[?(--[\w-]+)", line) if flag not in flags] == []


def check_command(words: list[str]) -> None:
    """Check the words after `retinanet`."""
    name, *rest = words
    if name in ("COMMAND", "--help", "--version"):
        return
    assert name in COMMANDS, f"there is no command {name}"
    if not rest or (name, *rest) in (("convert", "checkpoint"), ("lab", "losses")):
        return  # only named in a sentence
    _, options = parse(words)
    if options.get("only"):
        choose_variants(options["only"])
    overrides = [word for word in rest if OPTION.match(word)]
    if options.get("init_from"):
        overrides.append(f"model.init_from={options['init_from']}")
    what = next((v for v in (options.get("config"), options.get("what")) if v and v != "data"), "")
    check_experiment(name, str(what), overrides)


def parse(
    words: list[str], *, values: bool = True
) -> tuple[argparse.ArgumentParser, dict[str, Any]]:
    """Return the parser of a command, and what it makes of the words; nothing else runs."""
    kind: Any = type(command_parser("", "", ""))

    def ending(method: Callable[..., Any]) -> Callable[..., Any]:
        def parse_and_end(parser: Any, args: Any = None, namespace: Any = None) -> Any:
            if parser.prog == "retinanet lab":  # its first word chooses the parser of the others
                return method(parser, args, namespace)
            raise ParsedError(parser, vars(method(parser, args, namespace)) if values else {})

        return parse_and_end

    def refuse(parser: Any, message: str) -> None:
        raise ValueError(f"{parser.prog}: {message}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(kind, name, ending(getattr(kind, name)))
        patch.setattr(kind, "error", refuse)
        with pytest.raises(ParsedError) as end:
            import_module(f"retinanet.commands.{words[0]}").main(words[1:])
    return end.value.args


def check_experiment(command: str, what: str, overrides: list[str]) -> None:
    """Check the config that a line names, if it is one of ours, and the options after it."""
    path = ROOT / what if what.startswith("configs/") else find_config(what)
    is_ours = what.startswith("configs/") or re.fullmatch("[a-z_0-9]+", what)
    if command == "config" and what and not path.is_file() and path.suffix != ".yaml":
        describe(what)
    elif is_ours and not OPTION.match(what):
        load_config(path, overrides)
    else:  # a placeholder, such as CONFIG or my.yaml
        override_config(Config(), overrides)


LINES = [
    (page, line)
    for page in PAGES
    if page.name != "CHANGELOG.md"  # names commands as they were
    for line in command_lines(page.read_text("utf-8"))
]


@pytest.mark.parametrize(
    ("page", "line"), LINES, ids=[f"{page_name(page)}: {line}" for page, line in LINES]
)
def test_every_command_line_parses(page: Path, line: str) -> None:
    check_line(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("retinanet trian finetune_small", "no command trian"),
        ("retinanet train finetune_smal", "finetune_smal: there is no such file"),
        ("retinanet train configs/finetune_smal.yaml", "there is no such file"),
        ("retinanet train finetune_small --nmae first", "unrecognized arguments: --nmae"),
        ("retinanet train finetune_small train.lrr=1", "train.lrr"),
        ("retinanet train CONFIG train.lrr=1", "train.lrr"),
        ("retinanet train --resume runs/<name> train.lr=fast", "train.lr"),
        ("retinanet predict best.pt photos/ postprocess.nms=0.5", "postprocess.nms"),
        ("retinanet evaluate best.pt --annotation test.json", "unrecognized arguments"),
        ("retinanet check CONFIG --fit-anchor", "unrecognized arguments"),
        ("retinanet check CONFIG [section.key=value ...] [--fit-anchor]", "--fit-anchor"),
        ("retinanet convert vok my_voc my_data", "no format 'vok'"),
        ("retinanet convert voc my_voc", "OUT"),
        ("retinanet convert checkpoint a.pth b.pt --style cafe", "invalid choice: 'cafe'"),
        ("retinanet lab losses hard_r18 --only mian", "mian"),
        ("retinanet replay runs/first --step soon", "invalid int value: 'soon'"),
        ("retinanet config trian", "trian"),
        ("torchrun --nproc_per_nod 8 tools/train.py demo", "--nproc_per_nod"),
        ("torchrun --nproc_per_node 8 tools/trian.py demo", "tools/trian.py"),
        ("torchrun tools/train.py demo train.lrr=1", "train.lrr"),
        ("scripts/tset.sh", "tset.sh"),
        ("scripts/test.sh --quik", "--quik"),
        ("python scripts/soak_resume.py --kils 3", "--kils"),
        ("sbatch scripts/train.sbatch CONFIG data.rot=/data", "data.rot"),
        ("pip install -e '.[lap]'", "lap"),
        ("data.short_side=640 data.longside=1000", "data.longside"),
        ("data.preset=stronk", "data.preset"),
    ],
)
def test_a_wrong_command_line_is_found(line: str, message: str) -> None:
    assert command_lines(f"```\n{line}\n```") or command_lines(f"`{line}`") == [line]
    with pytest.raises((AssertionError, ValueError, UserError, OSError)) as found:
        check_line(line)
    assert message in str(found.value)


def test_command_lines_are_found_wherever_they_are() -> None:
    text = """Type `retinanet train a` or `retinanet
check b.json` and set `train.lr=0.1`, not `train.lr` or `lr=0.1`.

```
$ retinanet train c \\
    train.lr=0.2   # slowly
train.json
CUDA_VISIBLE_DEVICES=1 retinanet predict d e
```

    torchrun tools/train.py f

```python
retinanet = "scripts/no.sh"
```
"""
    assert len(LINES) > 100
    assert [" ".join(split_words(line)) for line in command_lines(text)] == [
        "retinanet train c train.lr=0.2",
        "retinanet predict d e",
        "torchrun tools/train.py f",
        "retinanet train a",
        "retinanet check b.json",
        "train.lr=0.1",
    ]


def test_placeholders_are_understood() -> None:
    line = "retinanet replay runs/<name> --step N ... | head  # a step"
    assert split_words(line) == ["retinanet", "replay", "runs/<name>", "--step", "1"]
    assert split_words("x --to torchvision|detectron2 $LITE0 'a b'")[2:] == [
        "torchvision",
        "$LITE0",
        "a b",
    ]
