"""The report is one file that needs no other; the video shows what happened."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from planner.evaluate.imagination import Imagined, Landscape
from planner.evaluate.report import write_report
from planner.evaluate.statistics import summary
from planner.evaluate.video import FAILURE, SUCCESS, Clip, film_strip, write_video


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def a_result(task: str = "Synthetic", **changes: Any) -> dict[str, Any]:
    floors = {"random": summary(1, 10), "noop": summary(0, 10), "oracle": summary(10, 10)}
    return {
        **{"task": task, **summary(7, 10), "floors": floors, "removed_pairs": 3, "distance": 25, "budget": 50},
        **{"plan_ms": {"median": 31.4, "p95": 44.2, "p99": 123.4}, "control_hz": 31.8, "optimizer": "cem", "seed": 5},
        **{"backend": "egl", "checkpoint_backend": "egl", "versions": {"torch": "1.2.3"}, "date": "2000-01-01"},
        **{"checkpoint_sha256": "ab" * 32, "commit": "c0ffee"},
        **changes,
    }


def some_episodes(task: str = "Synthetic") -> list[dict[str, Any]]:
    shared = {"task": task, "policy": "planner", "steps": 3, "initial_distance": 5.0}
    return [
        {**shared, "episode": 0, "success": True, "goal_distance": [3.0, 1.5, 0.5]},
        {**shared, "episode": 1, "success": False, "goal_distance": [4.0, math.nan, 2.0]},
        {**shared, "episode": 2, "success": True, "goal_distance": [0.0]},
        {**shared, "episode": 0, "success": False, "goal_distance": [9.0], "policy": "random"},
    ]


def a_clip(length: int = 4, success: bool = True, size: int = 64) -> Clip:
    frames = np.full((length, size, size, 3), 200, np.uint8)
    return Clip(frames, np.full((size, size, 3), 60, np.uint8), "synthetic", success)


def written(tmp_path: Path, results: list[dict[str, Any]], episodes: list[dict[str, Any]], video: Path | None) -> Page:
    write_report(tmp_path / "report.html", results, episodes, video)
    assert [path.name for path in tmp_path.glob("report*")] == ["report.html"], "nothing half-written stays"
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_report_says_what_was_measured(tmp_path: Path) -> None:
    page = written(tmp_path, [a_result(), a_result("Other")], some_episodes(), None)
    for words in ("Synthetic", "Other", "7/10", "70.0", "31.4", "44.2 / 123", "31.8", "25 environment steps"):
        assert words in page.text
    for words in ("50 environment steps", "ab" * 32, "c0ffee", "torch 1.2.3", "cem", "10/10", "do nothing"):
        assert words in page.text
    assert page.count("svg") == 3, "bars of both tasks, curves of the one with episodes"
    assert page.count("video") == 0


def test_report_embeds_everything(tmp_path: Path) -> None:
    video = tmp_path / "plan.mp4"
    video.write_bytes(b"not really a video")
    page = written(tmp_path, [a_result()], some_episodes(), video)
    sources = [attrs["src"] for _, attrs in page.tags if "src" in attrs]
    assert sources == ["data:video/mp4;base64," + base64.b64encode(b"not really a video").decode()]
    assert page.count("link") == page.count("script") == page.count("img") == 0
    for _, attrs in page.tags:
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith("#"), "only marks inside the chart are referred to"
    assert "@import" not in page.text and "url(" not in page.text.replace("url(#", "")


def test_report_does_without_what_is_missing(tmp_path: Path) -> None:
    nothing = {"median": math.nan, "p95": math.nan, "p99": math.nan}
    floors = {"random": summary(1, 10), "noop": summary(0, 10), "oracle": None}
    sparse = a_result(floors=floors, plan_ms=nothing, control_hz=None, commit="")
    del sparse["versions"], sparse["checkpoint_sha256"]
    page = written(tmp_path, [sparse], [], None)
    assert "oracle" not in page.text and "nan" not in page.text
    assert page.count("svg") == 1


def an_imagined(task: str = "Synthetic", dims: int = 2, **changes: Any) -> Imagined:
    scene = Landscape(
        dims,
        (0, 1),
        (-1.0, -2.0),
        (1.0, 2.0),
        ("m/s", "<b>"),
        5,
        np.full((3, 3), np.nan),
        (0.5, 1.0),
        0.25,
        np.zeros((4, 2)),
    )
    scene.energies[0, :] = [1, 2, 3]
    grey = np.full((8, 8, 3), 90, np.uint8)
    facts: dict[str, Any] = {"task": task, "episode": 4, "success": False, "step": 10, "block": 5, "now": grey}
    facts |= {"goal": grey, "nearest": np.stack([grey] * 3), "distance": np.array([0.1, 0.2, 0.3]), "bank": 1344}
    facts |= {"happened": grey[None], "off": np.array([0.7]), "model_step": 0.58, "landscape": scene}
    return Imagined(**facts | changes)


def test_report_shows_what_was_imagined(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    imagined = [an_imagined(dims=4), an_imagined(step=25), an_imagined("Elsewhere")]
    write_report(path, [a_result()], some_episodes(), None, imagined)
    page = Page(path.read_text(encoding="utf-8"))
    sources = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 2 * (1 + 3 + 1 + 1), "now, three imagined, one that happened, the goal"
    inside = [attrs["href"] or "" for tag, attrs in page.tags if tag == "image"]
    assert len(inside) == 2 * 2 and all(source.startswith("data:image/png;base64,") for source in sources + inside)
    assert page.count("circle") == 2 * (4 + 1) and page.text.count("over") >= 4
    for words in ("1,344 real frames", "0.58", "Episode 4, not reached", "Plan at step 25", "+15", "0.70", "<b>"):
        assert words in page.text
    assert "the 2 of 4 numbers" in page.text and page.text.count("chosen 0.25, lowest on the map 1") == 2


def test_report_shows_the_drop_under_every_appearance(tmp_path: Path) -> None:
    other = [{**one, "policy": "planner, noise", "success": one["episode"] == 1} for one in some_episodes()[:3]]
    looks = {"noise": summary(1, 10), "texture": summary(7, 10) | {"changed_pixels": 0.0}}
    page = written(tmp_path, [a_result(appearance=looks)], some_episodes() + other, None)
    cells = page.text.split("won")[1].split()
    assert cells[:3] == ["noise", "–", "1/10"] and "60.0" in cells
    where = cells.index("60.0")
    assert cells[where + 1 : where + 3] == ["2", "1"], "episodes 0 and 2 were lost, 1 was won"
    where = cells.index("texture")
    assert cells[where + 1 : where + 4] == ["0.0", "%", "7/10"], "what changes no pixel was no test"


def test_report_names_the_protocol_and_warns_of_other_pairs(tmp_path: Path) -> None:
    kept = {
        "name": "Synthetic-v1",
        "column": "25",
        "n": 10,
        "of": 200,
        "digest": "d1",
        "same_pairs": True,
        "departs": [],
    }
    page = written(tmp_path, [a_result(protocol=kept, hard_score=0.667, smallest_difference=0.6)], [], None)
    for words in (
        "Synthetic-v1, column 25, the first 10 of its 200 pairs",
        "66.7",
        "be 60 points better or worse",
        "d1",
    ):
        assert words in page.text
    assert "do not compare" not in page.text
    other = kept | {"same_pairs": False, "departs": ["the pairs are others"]}
    page = written(tmp_path, [a_result(protocol=other)], [], None)
    assert "Outside protocol Synthetic-v1: the pairs are others" in page.text and "do not compare" in page.text


def test_report_escapes_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    page = written(tmp_path, [a_result(evil, optimizer=evil)], some_episodes(evil), None)
    assert page.count("script") == 0
    assert page.text.count(evil) >= 2


def test_report_warns_of_mixed_pictures(tmp_path: Path) -> None:
    assert "a few grey levels" not in written(tmp_path, [a_result()], [], None).text
    assert "a few grey levels" in written(tmp_path, [a_result(checkpoint_backend="rays")], [], None).text


def test_report_and_video_import_no_heavy_thing() -> None:
    code = (
        "import sys, planner.evaluate.report, planner.evaluate.video, planner.evaluate.statistics;"
        "print([m for m in ('matplotlib', 'scipy', 'torch', 'mujoco', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def near(pixel: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool(np.abs(pixel.astype(int) - wanted).max() < 40)  # the codec bends colours a little


@pytest.mark.parametrize("count", [1, 3, 9])
def test_video_can_be_read_back(tmp_path: Path, count: int) -> None:
    path = tmp_path / "plan.mp4"
    write_video(path, [a_clip(length=3 + i % 2) for i in range(count)], fps=10)
    frames = imageio.imread(path)
    assert len(frames) == 3 + (count > 1) + 10, "the longest clip and one second of its end"
    assert frames.shape[1] % 16 == frames.shape[2] % 16 == 0
    assert imageio.immeta(path)["codec"] == "h264"
    assert imageio.immeta(path)["pix_fmt"].startswith("yuv420p")


def test_video_borders_tell_the_outcome(tmp_path: Path) -> None:
    path = tmp_path / "plan.mp4"
    write_video(path, [a_clip(4, success=True), a_clip(12, success=False)])
    frames = imageio.imread(path)
    middle, half = frames.shape[1] // 2, frames.shape[2] // 2

    def shows(frame: np.ndarray, colour: str, side: slice) -> bool:
        return any(near(pixel, colour) for pixel in frame[middle, side])

    left, right = slice(0, half), slice(half, None)
    assert not shows(frames[0], SUCCESS, left) and not shows(frames[0], FAILURE, right)
    assert shows(frames[6], SUCCESS, left) and not shows(frames[6], FAILURE, right)
    assert shows(frames[-1], SUCCESS, left) and shows(frames[-1], FAILURE, right)


def test_film_strip_ends_with_the_last_frame_and_the_goal(tmp_path: Path) -> None:
    for size in (48, 64, 224):
        path = tmp_path / "strip.png"
        film_strip(path, a_clip(length=10, size=size), every=4)  # 0, 4, 8, 9 and the goal
        picture = np.asarray(Image.open(path))
        row = picture[-1]
        assert picture.shape[2] == 4 and row[0, 3] == 255
        bright, dark, clear = (row[:, 0] == 200).sum(), (row[:, 0] == 60).sum(), (row[:, 3] == 0).sum()
        assert (bright, dark) == (4 * 128, 128) and clear > 0


def test_clip_refuses_wrong_pictures() -> None:
    good = np.zeros((2, 8, 8, 3), np.uint8)
    for frames, goal in [
        (good[0], good[0]),
        (good, good),
        (good[:0], good[0]),
        (good.astype(np.float32), good[0]),
        (good[..., :1], good[0]),
    ]:
        with pytest.raises(ValueError, match="expected uint8"):
            Clip(frames, goal, "", True)
    with pytest.raises(ValueError, match="at least one clip"):
        write_video(Path("never.mp4"), [])
