"""Foreign files: arrays are read, and code is never run."""

import argparse
import builtins
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retinanet.errors import UserError
from retinanet.interop.foreign_file import read_foreign, state_dict_of


class Command:
    """An attacker's pickle: it runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


class Evaluated:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return builtins.eval, ("1 + 1",)


def save(content: object, path: Path) -> Path:
    """Write a file in the format of its suffix."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        legacy = path.stem == "legacy"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


NAMES = ["zoo.pkl", "new.pth", "legacy.pth"]


@pytest.mark.parametrize("name", NAMES)
def test_arrays_and_plain_values_are_read(name: str, tmp_path: Path) -> None:
    weights = torch.arange(6, dtype=torch.float32).view(2, 3)
    array = weights.numpy() if name == "zoo.pkl" else weights
    content = {"model": {"a": array}, "epoch": 3, "names": ("x", "y"), "rate": np.float64(0.5)}
    found = read_foreign(save(content, tmp_path / name))
    assert np.array_equal(found["model"]["a"], array)
    assert (found["epoch"], found["names"], found["rate"]) == (3, ("x", "y"), 0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("what", "named"),
    [
        (Command, "posix.system"),
        (lambda _: Evaluated(), "eval"),
        (lambda _: pytest.approx, "approx"),
    ],
)
def test_nothing_is_executed(name: str, what, named: str, tmp_path: Path) -> None:
    """A command, an `eval`, an unknown function: refused by name, and not run."""
    marker = tmp_path / "ran"
    path = save({"model": {"a": np.zeros(1)}, "x": what(marker)}, tmp_path / name)
    with pytest.raises(UserError, match=rf"contains \S*{named}; it was not read"):
        read_foreign(path)
    assert not marker.exists()


def test_a_function_of_torch_cannot_be_changed(tmp_path: Path) -> None:
    """Pickle's BUILD sets attributes of a global: here, defaults of a function."""
    path = tmp_path / "zoo.pkl"
    name = b"X\x0c\x00\x00\x00__defaults__"
    path.write_bytes(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}" + name + b")s\x86b.")
    with pytest.raises(UserError, match="contains a change to a function; it was not read"):
        read_foreign(path)


class ObjectType:
    """NumPy's type of Python objects, set up to treat bytes as pointers."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class Pointers:
    def __reduce__(self) -> tuple[object, ...]:
        make, arguments, _ = np.zeros(1).__reduce__()
        return make, arguments, (1, (1,), ObjectType(), False, b"\x01\0\0\0\0\0\0\0")


class Pointer:
    def __reduce__(self) -> tuple[object, ...]:
        return np.float64(0).__reduce__()[0], (ObjectType(), b"\x01\0\0\0\0\0\0\0")


def test_bytes_are_never_used_as_pointers(tmp_path: Path) -> None:
    """NumPy's own unpickling would end the process here."""
    content = {"a": np.ones(1), "x": Pointers(), "y": Pointer()}
    found = read_foreign(save(content, tmp_path / "zoo.pkl"))
    assert found["a"].tolist() == [1] and found["x"] is found["y"] is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.zeros((0, 4), np.float32),
        np.array(5, np.uint8),
        np.array([True, False]),
    ],
)
def test_arrays_of_numbers(array: np.ndarray, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"a": array}, protocol=protocol))
    found = read_foreign(path)["a"]
    assert found.shape == array.shape and np.array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def test_a_name_of_torch_imports_nothing(tmp_path: Path) -> None:
    """`torch._inductor` and others are imported on access."""
    path = tmp_path / "zoo.pkl"
    path.write_bytes(b"\x80\x02ctorch\n_export\n.")
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"contains torch\._export; it was not read"):
        read_foreign(path)
    assert set(sys.modules) == before


def test_classes_of_training_files_become_placeholders(tmp_path: Path) -> None:
    """mmengine's log buffers (a class, numpy arrays, methods) and argparse's options."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    source = """
class HistoryBuffer:
    def __init__(self):
        self.values, self.statistics = __import__("numpy").ones(3), {"min": HistoryBuffer.smallest}
    def smallest(self):
        raise RuntimeError("run")
class ConfigDict(dict):
    pass
"""
    exec(source, vars(module))
    for kind in (module.HistoryBuffer, module.ConfigDict):
        kind.__module__ = module.__name__
    parents = {name: types.ModuleType(name) for name in ("mmengine", "mmengine.logging")}
    sys.modules |= {**parents, module.__name__: module}
    try:
        content = {
            "state_dict": {"a": torch.ones(2)},
            "message_hub": {"loss": module.HistoryBuffer()},
            "meta": {"cfg": "style='caffe'", "more": module.ConfigDict(x=1)},
            "args": argparse.Namespace(lr=0.1, path=Path("x")),
        }
        path = save(content, tmp_path / "epoch_12.pth")
    finally:
        for name in (*parents, module.__name__):
            del sys.modules[name]
    found = read_foreign(path)
    assert torch.equal(found["state_dict"]["a"], torch.ones(2))
    assert found["meta"]["cfg"] == "style='caffe'"
    assert type(found["meta"]["more"]).__name__ == "ConfigDict"
    assert not isinstance(found["meta"]["more"], dict) and vars(found["args"]) == {}
    assert not any(name.startswith("mmengine") for name in sys.modules)


def test_pickles_of_python_2(tmp_path: Path) -> None:
    """Caffe2's files: names are byte strings, which are Latin-1."""
    path = tmp_path / "R-50.pkl"
    path.write_bytes(b"\x80\x02}q\x00(U\x03a_wK\x01U\x02\xe9bK\x02u.")
    assert read_foreign(path) == {"a_w": 1, "éb": 2}


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(UserError, match=r"is a TorchScript program. Save its weights: python -c"):
        read_foreign(path)


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors comes with timm")
    safetensors.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_foreign(tmp_path / "a.safetensors")["a"], torch.ones(2))


def test_safetensors_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(
        UserError, match=r"need the package safetensors: pip install 'retinanet\[timm\]'"
    ):
        read_foreign(tmp_path / "a.safetensors")


@given(cut=st.integers(0, 400), noise=st.binary(max_size=40))
def test_damaged_files_are_user_errors(
    cut: int, noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut off anywhere, with any bytes behind: one message, no other exception."""
    folder = tmp_path_factory.mktemp("damaged")
    whole = pickle.dumps({"model": {"a": np.zeros(9)}}, protocol=2)
    path = folder / "a.pkl"
    path.write_bytes(whole[: min(cut, len(whole) - 1)] + noise)
    try:
        read_foreign(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """Torch does not check the checksums that it writes."""
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.arange(999)}}, path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(torch.arange(400, 410).numpy().tobytes())] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match="its content does not match its checksums"):
        read_foreign(path)


def test_lists_that_share_their_items_take_no_time(tmp_path: Path) -> None:
    """40 lists, each with the previous one twice: 2 to the power of 40 items, if all are read."""
    nested: list[object] = [np.zeros(1)]
    for _ in range(40):
        nested = [nested, nested]
    found = read_foreign(save({"a": np.ones(1), "x": nested}, tmp_path / "zoo.pkl"))
    assert found["a"].tolist() == [1]


@pytest.mark.parametrize("name", ["R-50.weights", "R-50.pth", "R-50.pkl"])
def test_the_format_is_recognised_by_bytes_not_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"a": np.ones(1)}))
    assert read_foreign(path)["a"].tolist() == [1]
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    assert read_foreign(path)["a"].tolist() == [1]
    torch.save({"a": torch.ones(1)}, path)
    assert read_foreign(path)["a"].tolist() == [1]


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; give a file in it"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_foreign(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.ones(2)},
        {"model": {"a": torch.ones(2)}, "optimizer": {"b": torch.zeros(1)}},
        {"state_dict": {"module.a": torch.ones(2)}, "epoch": 1},
        {"blobs": {"a": np.ones(2, dtype=np.float32)}},
        {"net": {b"a": np.ones(2)}},
        {"model_state_dict": {"model._orig_mod.a": torch.ones(2)}},
    ],
)
def test_where_the_weights_are(content: object) -> None:
    """Bare, in training files from detectron2 and mmdetection, of a wrapped model, as blobs."""
    found = state_dict_of(content, Path("x.pth"))
    assert list(found) == ["a"] and isinstance(found["a"], Tensor)
    assert found["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "contains list, not weights by name"), ({"epoch": 3}, "contains no array")],
)
def test_no_weights(content: object, message: str) -> None:
    with pytest.raises(UserError, match=f"x.pth: {message}"):
        state_dict_of(content, Path("x.pth"))
