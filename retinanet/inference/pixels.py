"""Read an image from any form that Python programs use, as (H, W, 3) uint8 RGB pixels."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.data.images.reading import UnreadableImageError, read_image
from retinanet.errors import ArgumentError, UserError

if TYPE_CHECKING:
    import PIL.Image

    # Of any array, because type checkers rarely know that OpenCV's are uint8.
    ImageInput: TypeAlias = str | os.PathLike[str] | NDArray[Any] | Tensor | PIL.Image.Image

TAKES = (
    "An image is a path, a PIL image, a uint8 NumPy array (H, W, 3) in RGB order (grey and RGBA, "
    "too), or a uint8 tensor (3, H, W)"
)
_URL = re.compile(r"(data:|[A-Za-z][A-Za-z0-9+.-]{1,9}:/)", re.IGNORECASE)
"""One slash is enough: a `Path` drops the second one."""
_LONGEST_SHOWN = 300
"""Characters of a path in a message; a text that is not a path may have millions."""
_CHANNELS = (1, 2, 3, 4)
"""Grey, grey and alpha, RGB, RGBA."""
_PIL_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_PIL_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_pixels(image: ImageInput) -> NDArray[np.uint8]:
    """Return the pixels of an image, (H, W, 3) uint8 RGB.

    Grey images get three equal channels. An alpha channel is dropped, and the colours stay as they
    are. Paths are read by `read_image`. A PIL image is rotated by its EXIF orientation, as a file
    is. If it has 16 bits per pixel, the high byte is used.

    Args:
        image: Path of a file, PIL image, NumPy array (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or
            (H, W, 4), or tensor (C, H, W) with as many channels, on any device. Arrays and tensors
            are uint8. OpenCV's arrays are BGR: pass `image[:, :, ::-1]`.

    Raises:
        TypeError: Anything else. The message names what it got and how to convert it.
        ArgumentError: A URL, or a folder.
        UserError: There is no such file, or it cannot be decoded.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_file(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if _is_pil(image):
        return _from_pil(image)
    raise TypeError(f"Got {describe(image)}. {TAKES}{_hint(image)}.")


def path_of(image: ImageInput) -> Path | None:
    """Return the path of an image that is given as one, or None."""
    return expanded(image) if isinstance(image, (str, os.PathLike)) else None


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of `~`.

    Raises:
        ArgumentError: `~name` names an unknown user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ArgumentError(f"{os.fspath(path)}: this user has no home folder") from None


def is_url(text: str) -> bool:
    """Whether a path is a URL, or was one before `Path` dropped a slash."""
    return _URL.match(text) is not None


def describe(value: Any) -> str:
    """Return what a value is, for a message: its type, and the shape of an array."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.is_nested:
            return f"a nested tensor of type {dtype}"
        layout = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
        layout = "" if layout == "strided" else f"{layout} "
        return f"a {layout}tensor of type {dtype} and shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of type {value.dtype} and shape {value.shape}"
    if _is_pil(value):
        return f"a PIL image of mode {value.mode!r} and size {value.size}"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return "None" if value is None else f"a value of type {name}"


def _hint(value: Any) -> str:
    if isinstance(value, bytes) and len(value) < 1000 and os.path.isfile(value):  # noqa: PTH113
        return ". Pass the path as a string: os.fsdecode(path)"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ". Decode the bytes first: PIL.Image.open(io.BytesIO(data))"
    if hasattr(value, "read"):
        return ". Pass the file's path, or PIL.Image.open(file)"
    if isinstance(value, (list, tuple)):
        return (
            ". A list of images cannot contain lists. For pixels, pass an array: "
            "np.array(x, np.uint8)"
        )
    if hasattr(value, "__iter__"):
        return ". For several images, pass list(images) or iter(images)"
    return ""


def _read_file(name: str | os.PathLike[str]) -> NDArray[np.uint8]:
    text = os.fspath(name)
    if not isinstance(text, str):
        raise TypeError(f"Got a path as bytes. {TAKES}. Pass os.fsdecode(path).")
    if not text:
        raise ArgumentError("The path of the image is empty")
    path = expanded(name)
    if os.path.isdir(path):  # noqa: PTH112 (pathlib raises at a name that is too long)
        raise ArgumentError(
            f"{path}: is a folder. Pass its images: sorted(Path({str(path)!r}).glob('*.jpg'))"
        )
    if not os.path.lexists(path):
        raise _not_there(path, text)
    try:
        return read_image(path)
    except UnreadableImageError as error:
        raise UserError(str(error)) from None


def _not_there(path: Path, text: str) -> UserError:
    """Return the error for a path that does not exist: it may be something else."""
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    url = _URL.match(text)
    if url and url[0].lower() == "data:":
        return ArgumentError(
            f"{shown}: is the content of an image, not a path. Decode it: "
            "PIL.Image.open(io.BytesIO(base64.b64decode(text.partition(',')[2])))"
        )
    if url and url[0].lower() == "file:/":
        return ArgumentError(f"{shown}: is a URL. Pass the path of the file, without file://")
    if url and url[0].lower() in ("http:/", "https:/"):
        return ArgumentError(
            f"{shown}: nothing is read from the network. Download it first: "
            f"curl -LO {shlex.quote(shown)}"
        )
    if url:
        return ArgumentError(f"{shown}: nothing is read from the network. Pass a file")
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    remedy = ""
    if "*" in text or "?" in text:
        remedy = f". For a pattern pass sorted(glob.glob({shown!r}))"
    shown = str(path) if len(str(path)) <= _LONGEST_SHOWN else shown
    return UserError(f"{shown}: there is no such file{where}{remedy}")


def _from_tensor(image: Tensor) -> NDArray[np.uint8]:
    if image.dtype != torch.uint8:
        raise TypeError(f"Got {describe(image)}. {TAKES}. {_to_uint8(image, '.to(torch.uint8)')}")
    if image.is_nested or image.layout != torch.strided or image.is_meta:
        raise TypeError(f"Got {describe(image)}. {TAKES}. It must be dense and have values.")
    if image.dim() != 3 or image.shape[0] not in _CHANNELS or not image.numel():
        hint = ""
        if image.dim() == 4:
            hint = ". For a batch, pass list(images)"
        elif image.dim() == 2:
            hint = ". For a grey image, pass image[None]"
        elif image.dim() == 3 and image.shape[2] in _CHANNELS:
            hint = ". Channels come first in a tensor: pass image.permute(2, 0, 1)"
        raise TypeError(f"Got {describe(image)}. {TAKES}{hint}.")
    pixels = image.detach().cpu().permute(1, 2, 0)  # (C, H, W) -> (H, W, C)
    return _to_rgb(pixels.as_subclass(Tensor).numpy())


def _from_array(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8:
        raise TypeError(f"Got {describe(image)}. {TAKES}. {_to_uint8(image, '.astype(np.uint8)')}")
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in _CHANNELS or not image.size:
        hint = ""
        if image.ndim == 4:
            hint = ". For a batch, pass list(images)"
        elif image.ndim == 3 and image.shape[0] in _CHANNELS:
            hint = ". Channels come last in an array: pass image.transpose(1, 2, 0)"
        raise TypeError(f"Got {describe(image)}. {TAKES}{hint}.")
    return _to_rgb(image)


def _to_uint8(image: Any, convert: str) -> str:
    """Return how an array or tensor of another type is turned into uint8."""
    kind = getattr(image.dtype, "name", str(image.dtype)).removeprefix("torch.")
    if kind.startswith(("str", "bytes", "object")):
        return "For several paths or images, pass image.tolist()."
    if kind.startswith("complex"):
        return "Pixels cannot be complex numbers."
    if kind.startswith(("float", "bfloat")):
        return f"If its values are from 0 to 1, pass (image * 255).round(){convert}."
    if kind == "bool":
        return f"If True is white, pass image{convert} * 255."
    if kind == "uint16":
        return f"To use the high byte, as for a 16-bit file, pass (image >> 8){convert}."
    return f"If its values are from 0 to 255, pass image{convert}."


def _from_pil(image: PIL.Image.Image) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if image.mode not in (*_PIL_8_BIT, *_PIL_16_BIT) or not all(image.size):
        remedy = "Pass its path, or image.convert('RGB')"
        if image.mode in ("I", "F"):  # convert would clip all that is above 255
            remedy = "Pass its path, or scale its values to 0-255 and pass a uint8 array"
        elif image.mode == "La":
            remedy = "Pass its path, or image.convert('LA')"
        raise TypeError(f"Got {describe(image)}. {TAKES}. {remedy}.")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _PIL_16_BIT:
            return _to_rgb((np.asarray(upright)[:, :, None] >> 8).astype(np.uint8))
        return np.array(upright.convert("RGB"))
    except AssertionError:  # of PIL, for a file that was closed before it was read
        raise UserError(
            f"{_name_of(image)}: cannot be decoded: the file was closed before it was read. Use "
            "the image inside `with`, or call image.load() there"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:  # PIL reads a file only now
        raise UserError(f"{_name_of(image)}: cannot be decoded: {error}") from None


def _name_of(image: PIL.Image.Image) -> str:
    return str(getattr(image, "filename", "")) or "PIL image"


def _to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 3) of grey, grey and alpha, RGB or RGBA."""
    grey = pixels.shape[2] < 3
    rgb = np.repeat(pixels[:, :, :1], 3, axis=2) if grey else pixels[:, :, :3]
    return np.ascontiguousarray(rgb)


def _is_pil(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")  # a program with such an image has imported it
    return module is not None and isinstance(value, module.Image)
