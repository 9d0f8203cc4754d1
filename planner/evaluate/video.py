"""Episodes as pictures: a grid of camera and goal side by side as mp4, and one episode as a strip of stills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_CLIPS = 8
PANEL = 192  # px; three times the 64 px that models see, so that every pixel stays a crisp square
STILL = 128  # px
CAPTION, GAP, BORDER = 26, 8, 4  # px
BACKGROUND, TILE, TEXT, DIM = "#12151a", "#1d2129", "#e8eaed", "#9aa3ad"
SUCCESS, FAILURE = "#35c07f", "#e5566d"


@dataclass(frozen=True)
class Clip:
    """One episode to look at.

    Attributes:
        frames: what the camera saw, uint8 `[T, h, w, 3]`, T >= 1; the last one is where the episode ended.
        goal: the goal image, uint8 `[h, w, 3]`.
        title: a few words, shown above.
        success: whether the episode ended at the goal; None where nobody can tell, as with a goal of which only the
            picture is known.
    """

    frames: NDArray[np.uint8]
    goal: NDArray[np.uint8]
    title: str
    success: bool | None

    def __post_init__(self) -> None:
        for name, array, ndim in (("frames", self.frames, 4), ("goal", self.goal, 3)):
            if array.ndim != ndim or array.shape[-1] != 3 or array.dtype != np.uint8 or array.size == 0:
                shape = "[T, h, w, 3]" if ndim == 4 else "[h, w, 3]"
                raise ValueError(f"Clip.{name}: expected uint8 {shape}, not empty, got {array.dtype} {array.shape}")


def write_video(path: Path, clips: Sequence[Clip], fps: int = 10) -> None:
    """Writes the first `MAX_CLIPS` clips as one mp4 (H.264, yuv420p), at most four in a row.

    Each clip shows the camera on the left and the goal on the right. A clip that is over stands still on its last
    frame, with a green border if it reached the goal and a red one if not; the end is held for one second.

    Args:
        path: the file to write, ending in `.mp4`.
        clips: at least one.
        fps: frames (environment steps) a second, >= 1.

    Raises:
        ValueError: when there is no clip.
    """
    if not clips:
        raise ValueError("write_video: expected at least one clip, got none")
    import imageio.v2 as imageio

    clips = clips[:MAX_CLIPS]
    length = max(len(clip.frames) for clip in clips) + fps
    writer = imageio.get_writer(
        path, fps=fps, codec="libx264", quality=8, pixelformat="yuv420p", output_params=["-movflags", "+faststart"]
    )
    with writer:
        for step in range(length):
            writer.append_data(_grid(clips, step))


def film_strip(path: Path, clip: Clip, every: int) -> None:
    """Writes one episode as a PNG: every `every`-th frame and the last one in a row, then the goal.

    The background is transparent, so that the picture sits well on a light and on a dark page.

    Args:
        path: the file to write, ending in `.png`.
        clip: the episode.
        every: frames between two stills, >= 1.
    """
    last = len(clip.frames) - 1
    steps = [*range(0, last, every), last]
    pictures = [(f"step {step}", clip.frames[step], DIM) for step in steps]
    pictures.append(("goal", clip.goal, SUCCESS))
    width = len(pictures) * (STILL + GAP) + GAP  # one gap more, before the goal, sets it apart
    strip = Image.new("RGBA", (width, CAPTION + STILL))
    draw = ImageDraw.Draw(strip)
    for i, (caption, picture, colour) in enumerate(pictures):
        x = i * (STILL + GAP) + (2 * GAP if i == len(steps) else 0)
        draw.text((x + STILL / 2, CAPTION / 2), caption, fill=colour, font=_font(14), anchor="mm")
        strip.paste(_panel(picture, STILL), (x, CAPTION))
    strip.save(path)


def _grid(clips: Sequence[Clip], step: int) -> NDArray[np.uint8]:
    """All clips at one step, uint8 `[height, width, 3]`, both sides multiples of 16."""
    tiles = [_tile(clip, step) for clip in clips]
    columns = len(tiles) if len(tiles) <= 2 else 2 if len(tiles) == 4 else 3 if len(tiles) <= 6 else 4
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    # H.264 codes blocks of 16 x 16: padding here keeps the encoder from rescaling the crisp pixels.
    size = (_ceil16(columns * width + GAP), _ceil16(rows * height + GAP))
    left, top = (size[0] - columns * width + GAP) // 2, (size[1] - rows * height + GAP) // 2
    canvas = Image.new("RGB", size, BACKGROUND)
    for i, tile in enumerate(tiles):
        canvas.paste(tile, (left + i % columns * width, top + i // columns * height))
    return np.asarray(canvas)


def _tile(clip: Clip, step: int) -> Image.Image:
    """Caption, camera and goal of one clip at one step, with the border of its outcome once it is over."""
    over = step >= len(clip.frames) - 1
    width, height = 2 * PANEL + 3 * GAP, CAPTION + PANEL + GAP
    outcome = {True: SUCCESS, False: FAILURE, None: DIM}[clip.success]
    tile = Image.new("RGB", (width + 2 * BORDER, height + 2 * BORDER), outcome if over else TILE)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((BORDER, BORDER, BORDER + width - 1, BORDER + height - 1), fill=TILE)
    x, middle, right = BORDER + GAP, BORDER + CAPTION / 2, BORDER + GAP + PANEL + GAP + PANEL
    # A word beside the colour: red and green look alike to some eyes.
    words = {True: "reached", False: "not reached", None: "goal"}[clip.success] if over else "goal"
    draw.text((right, middle), words, fill=outcome if over else DIM, font=_font(14), anchor="rm")
    draw.text((x, middle), _fit(clip.title, right - x - 90), fill=TEXT, font=_font(14), anchor="lm")
    tile.paste(_panel(clip.frames[min(step, len(clip.frames) - 1)], PANEL), (x, BORDER + CAPTION))
    tile.paste(_panel(clip.goal, PANEL), (x + PANEL + GAP, BORDER + CAPTION))
    return tile


def _fit(text: str, width: float) -> str:
    """As much of `text` as fits into `width` px."""
    while text and _font(14).getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text


def _panel(picture: NDArray[np.uint8], size: int) -> Image.Image:
    """A picture as a square of `size` px: small ones keep their hard pixels, large ones are averaged."""
    small = max(picture.shape[:2]) <= size
    return Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST if small else Image.Resampling.BOX)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # travels with Pillow: no fonts are needed on the machine


def _ceil16(pixels: int) -> int:
    return -(-pixels // 16) * 16
