"""Pictures on their way in and out: image files, bare bytes, and the batches that policies see."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from tensordict import TensorDict

from .errors import BadInput

FILES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
"""What image files begin with; one of these may be just as long as the bare rows of a picture."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What PIL raises for a file that is no image, or a broken one; `BadInput` is a ValueError, too."""


def batch(pictures: np.ndarray) -> TensorDict:
    """What a policy sees, batch `[E]`, of pictures, uint8 `[E, size, size, 3]`; memory is shared."""
    return TensorDict({"pixels": torch.from_numpy(pictures)}, batch_size=[len(pictures)])


def decode(data: bytes, size: int, larger: bool = False) -> np.ndarray:
    """A picture, uint8 `[size, size, 3]`, from an image file's bytes (PNG, JPEG, ...) or from those of its RGB rows.

    Args:
        data: of the file, or of the rows.
        size: height and width, pixels.
        larger: take an image file of another size, too, and `fit` it.

    Raises:
        BadInput: if it is neither, of another size (`larger`: smaller), or has no colours (see `colours`).
    """
    bare = len(data) == size * size * 3
    if bare and not data.startswith(FILES):
        return _rows(data, size)
    kind = "at least " if larger else ""
    expected = f"an image file of {kind}{size} x {size} pixels, or {size * size * 3} bytes of RGB"
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if larger or (width, height) == (size, size):
                return fit(colours(image, "the picture"), size)
    except BadInput:
        raise
    except UNREADABLE:
        if bare:  # colours that happen to begin as a file does
            return _rows(data, size)
        raise BadInput("the picture cannot be read", expected=expected, got=f"{len(data)} bytes") from None
    got = f"{width} x {height} pixels"
    raise BadInput(
        "the picture has another size", expected=expected, got=got, do="crop and scale it first, or serve with --fit"
    )


def colours(image: Image.Image, what: str) -> np.ndarray:
    """The colours of an open image, uint8 `[h, w, 3]`, whatever its mode; of values of 16 bits the upper 8 count.

    PIL cuts greys of more than 8 bits off at 255, which makes nearly all of them white, and shows the colours that
    lie hidden under transparency.

    Raises:
        BadInput: naming the image as `what`, if nothing says which of its values is white, or it is transparent.
    """
    if image.mode in ("I", "F"):
        expected, got = "8 or 16 bits a value", f"mode {image.mode}, of 32 bits"
        raise BadInput(f"{what}: nothing says which value is white", expected=expected, got=got, do="save it as RGB")
    if _transparent(image):
        do = "put it on its background, and save it as RGB"
        raise BadInput(f"{what} is transparent", expected="opaque pixels, as a camera's", do=do)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # as PIL does it for colours of 16 bits
        return np.repeat(grey[..., None], 3, axis=2)
    image = image.convert("RGBA") if image.has_transparency_data else image  # PIL warns of a palette's otherwise
    return np.array(image.convert("RGB"))  # a copy: PIL's own bytes are read-only


def _transparent(image: Image.Image) -> bool:
    """Whether any pixel is less than opaque."""
    if image.mode.startswith("I;16"):
        return bool((np.asarray(image) == image.info.get("transparency", -1)).any())  # PNG: one value means nothing
    return image.has_transparency_data and bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle of a picture, uint8 `[h, w, 3]`, scaled to `[size, size, 3]`: each pixel a mean of its
    area. `jepa-mpc import` makes pictures so; a camera that is planned with has to have them made so, too.

    Raises:
        BadInput: where the picture is smaller: what it does not show would be made up.
    """
    height, width = picture.shape[:2]
    if (side := min(height, width)) < size:
        expected, got = f"at least {size} x {size} pixels", f"{width} x {height}"
        raise BadInput("a picture is too small", expected=expected, got=got)
    if (height, width) == (size, size):
        return picture
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    return np.array(square.resize((size, size), Image.Resampling.BOX))


def _rows(data: bytes, size: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(size, size, 3).copy()


def png(picture: np.ndarray) -> bytes:
    """A PNG of a picture, uint8 `[h, w, 3 or 4]`."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
