"""Files of other projects: read their arrays without running their code.

A pickle is a program. Files with only tensors are read with torch's `weights_only`. Other files are
read by an unpickler that accepts arrays and plain containers. Some classes, which training files of
a few projects are known to contain, become empty placeholders. Anything else is refused.
"""

from __future__ import annotations

import _codecs
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.serialization import MAGIC_NUMBER

from retinanet.checkpoints.format import check_sums
from retinanet.checkpoints.other_files import describe, name_file, name_other_archive
from retinanet.errors import UserError
from retinanet.model.pretrained import (
    STATE_KEYS,
    is_safetensors,
    read_safetensors,
    without_wrappers,
)

_PLACEHOLDER_PROJECTS = {
    *("mmengine", "mmcv", "mmdet", "mmcls", "mmpretrain", "addict", "yapf"),  # mmdetection's
    *("detectron2", "fvcore", "iopath", "yacs", "omegaconf"),  # detectron2's
}
"""Projects whose classes become placeholders."""
_PLACEHOLDER_CLASSES = {
    "argparse.Namespace",  # torchvision's training scripts
    "builtins.getattr",  # how Python 3 pickles the methods that mmengine's buffers name
    "__builtin__.getattr",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.datetime",
    "collections.defaultdict",
    "collections.deque",
    "collections.Counter",
}
"""Other classes that become placeholders."""


class _Refused(pickle.UnpicklingError):
    """The file names something that is not needed to hold arrays."""


class _Placeholder:
    """Replacement for an object of another project: accepts everything and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    add = append


class _Function:
    """A function that a pickle may call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *values: Any) -> Any:
        return self._call(*values)

    def __setstate__(self, _: Any) -> None:
        raise _Refused("a change to a function")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Return bytes from the text that pickle protocols before 3 store in their place."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding}")
    return _codecs.encode(text, "latin1")


class _Dtype:
    """Replacement for a NumPy type, whose own unpickling can be made to treat bytes as pointers."""

    def __init__(self, code: str, *_: Any) -> None:
        self.kind = np.dtype(code) if re.fullmatch(r"[<>|=]?[biuf][1248]", code) else None
        """None for types that weights do not have: strings, objects, records."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.kind is not None and state[1] in ("<", ">", "=", "|"):
            self.kind = self.kind.newbyteorder(state[1])


class _Array:
    """Replacement for a NumPy array until everything has been read."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _make_array(raw, dtype, tuple(shape), "F" if fortran else "C")


def _make_array(raw: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> NDArray[Any] | None:
    """Return an array from the bytes of a pickle; None if they are not numbers."""
    if not isinstance(dtype, _Dtype) or dtype.kind is None:
        return None
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)  # Python 2 wrote text
    array = np.frombuffer(data, dtype.kind).reshape(shape, order=order)
    return array.astype(dtype.kind.newbyteorder("="))


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    values = _make_array(raw, dtype, (1,), "C")
    return None if values is None else values[0].item()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.value = _make_array(raw, dtype, tuple(shape), "F" if order == "F" else "C")
    return array


def _only_bytes(data: bytes = b"") -> bytes:
    """Return bytes unchanged; `bytes` itself would turn a number n into n zeros."""
    if not isinstance(data, bytes):
        raise _Refused(f"bytes of {type(data).__name__}")
    return data


_ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.bytearray": _Function(_only_bytes),
    "__builtin__.bytearray": _Function(_only_bytes),
    "__builtin__.bytes": _Function(_only_bytes),
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "_codecs.encode": _Function(_encode_latin1),
    "torch._utils._rebuild_tensor": _Function(torch._utils._rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(torch._utils._rebuild_tensor_v2),
    "torch._utils._rebuild_parameter": _Function(torch._utils._rebuild_parameter),
    **{
        f"numpy.{core}.{name}": call
        for core in ("core", "_core")  # before NumPy 2, and since
        for name, call in (
            ("multiarray._reconstruct", _Function(_Array)),
            ("multiarray.scalar", _Function(_scalar)),
            ("numeric._frombuffer", _Function(_frombuffer)),
        )
    },
}
_DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


class _Unpickler(pickle.Unpickler):
    """Accepts arrays and plain containers; `torch.load` adds its storages."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement for a global of the pickle; nothing is imported."""
        full = f"{module}.{name}"
        if full in _ADMITTED:
            return _ADMITTED[full]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if full in _PLACEHOLDER_CLASSES or module.partition(".")[0] in _PLACEHOLDER_PROJECTS:
            return type(name.rpartition(".")[2], (_Placeholder,), {})
        raise _Refused(full)


def _load(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="arrays and containers")


def read_foreign(path: Path) -> Any:
    """Return the content of a file of another project, with its tensors on the CPU.

    Args:
        path: Path of a torch file (`.pth`), a pickle of arrays (`.pkl`), or a `.safetensors` file.

    Raises:
        UserError: The file is missing or damaged, or contains more than arrays and plain values.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file in it")
    if not path.is_file():
        wrong = "is not a regular file" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {wrong}")
    try:
        return _with_arrays(_read_any_format(path), {})
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UserError:
        raise
    except Exception as error:  # pickle and torch raise nearly anything for a damaged file
        kind = name_file(path)
        if kind is not None and not kind.converts:
            raise UserError(f"{path}: {describe(kind, path)}") from None
        refused = _refused_name(error)
        if refused:
            raise UserError(
                f"{path}: contains {refused}; it was not read, because such a file can run code. "
                "Save only its weights: torch.save(model.state_dict(), ...)"
            ) from None
        raise UserError(
            f"{path}: is not a torch file, a pickle of arrays or a safetensors file, or is damaged"
        ) from None


def _with_arrays(value: Any, done: dict[int, Any]) -> Any:
    """Return what was read, with arrays in place of their replacement objects.

    Args:
        value: Content of the file.
        done: Results by the `id` of their source: the same value may appear in many places.
    """
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, dict) and type(value) not in (list, tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            plain: Any = {key: _with_arrays(item, done) for key, item in value.items()}
        else:
            plain = type(value)(_with_arrays(item, done) for item in value)
        done[id(value)] = plain
    return done[id(value)]


def _refused_name(error: BaseException | None) -> str:
    """Return the name that was refused; torch wraps an error in others."""
    while error is not None:
        if isinstance(error, _Refused):
            return str(error)
        error = error.__cause__ or error.__context__
    return ""


def _read_any_format(path: Path) -> Any:
    if is_safetensors(path):
        return read_safetensors(path)
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            _check_archive(path)
        else:
            file.seek(0)
            content = _load(file, encoding="latin1")
            if content != MAGIC_NUMBER:  # files from before torch 1.6 begin with it
                return content
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, encoding="latin1"
        )


def _check_archive(path: Path) -> None:
    """Refuse damaged files, and TorchScript programs, which torch would load as programs."""
    other = name_other_archive(path)
    if other is not None:
        raise UserError(f"{path}: {describe(other, path)}")
    check_sums(path)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights in a file by name: those under one of the usual keys, else all of them.

    Raises:
        UserError: The file contains no weights.
    """
    for name in (*STATE_KEYS, "blobs"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: contains {type(content).__name__}, not weights by name")
    state = {
        name.decode("latin1") if isinstance(name, bytes) else str(name): torch.as_tensor(
            value
        ).detach()
        for name, value in content.items()
        if isinstance(value, Tensor | np.ndarray)
    }
    if not state:
        raise UserError(f"{path}: contains no array")
    return without_wrappers(state)
