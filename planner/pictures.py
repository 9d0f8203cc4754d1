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


def batch(pictures: np.ndarray) -> TensorDict:
    """What a policy sees, batch `[E]`, of pictures, uint8 `[E, size, size, 3]`; memory is shared."""
    return TensorDict({"pixels": torch.from_numpy(pictures)}, batch_size=[len(pictures)])


def decode(data: bytes, size: int) -> np.ndarray:
    """A picture, uint8 `[size, size, 3]`, from an image file's bytes (PNG, JPEG, ...) or from those of its RGB rows.

    Raises:
        BadInput: if it is neither, or of another size.
    """
    bare = len(data) == size * size * 3
    if bare and not data.startswith(FILES):
        return _rows(data, size)
    expected = f"an image file of {size} x {size} pixels, or {size * size * 3} bytes of RGB"
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if (width, height) == (size, size):
                return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        if bare:  # colours that happen to begin as a file does
            return _rows(data, size)
        raise BadInput("the picture cannot be read", expected=expected, got=f"{len(data)} bytes") from None
    got = f"{width} x {height} pixels"
    raise BadInput("the picture has another size", expected=expected, got=got, do="crop and scale it first")


def _rows(data: bytes, size: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(size, size, 3).copy()


def png(picture: np.ndarray) -> bytes:
    """A PNG of a picture, uint8 `[h, w, 3 or 4]`."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()
