"""Episodes from elsewhere: what files may hold, what becomes of them, and a robot of which there is nothing else."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import tracemalloc
import zlib
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from toys import MIRROR, dot_store, toy_checkpoint, toy_model

import envs
from planner import checkpoint, surprise
from planner.actions import ActionSpec
from planner.adapters.session import Session
from planner.cli import _parse, main
from planner.data import EpisodeStore, Windows
from planner.errors import BadInput
from planner.evaluate.energy import read_recording
from planner.guard import Limits
from planner.overlap import copies, runs_of
from planner.overlap import moves as moves_of
from planner.pictures import fit, png
from planner.recordings import Take, best_length, bounds, gather, takes
from planner.settings import TrainConfig
from planner.training import polish
from planner.training.batches import Pictures
from planner.training.looks import agreement

ROOT = Path(__file__).parent.parent
SPEC = ActionSpec((-1.0,), (1.0,), ("m/s",), 2)


def film(frames: int, first: int = 0, size: int = 16) -> np.ndarray:
    """Pictures that say which frame they are, uint8 `[frames, size, size, 3]`."""
    return np.broadcast_to(
        np.arange(first, first + frames, dtype=np.uint8)[:, None, None, None], (frames, size, size, 3)
    )


def moves(actions: int, first: int = 0) -> np.ndarray:
    """Actions that say at which frame they were done, `[actions, 1]`."""
    return np.arange(first, first + actions)[:, None] / 256.0


def take(actions: Any, path: str = "a.npz", first: int = 0) -> Take:
    """An episode of these actions, `[L, a]`."""
    done = np.array(actions, np.float32)
    return Take(Path(path), first, done, np.empty((len(done) + 1, 0), np.float32), (16, 16), zlib.crc32(path.encode()))


def gathered(tmp_path: Path, *files: Path, steps: int = 4, **changes: Any) -> EpisodeStore:
    """A dataset of them."""
    found = [take for file in files for take in takes(file, state="state" in changes)]
    return gather("recorded/arm", found, tmp_path / "data", SPEC, steps=steps, size=16, **changes)


def assert_aligned(store: EpisodeStore, firsts: list[int]) -> None:
    """Row k begins at frame `firsts[k]`, and every action lies between the frames that it was done between."""
    for row, first in enumerate(firsts):
        frames = torch.arange(first, first + store.info.steps + 1)
        assert torch.equal(store.data["pixels"][row, :, 0, 0, 0].long(), frames)
        assert torch.equal(store.data["actions"][row, :, 0], frames[:-1] / 256)
    assert store.info.episodes == len(firsts)
    store.verify("recorded/arm")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("actions", [9, 10])
def test_an_episode_is_cut_into_pieces(tmp_path: Path, save: Any, actions: int) -> None:
    """With all that was done in one of them: ends were left out. With as many actions as frames the last one leads
    nowhere."""
    save(tmp_path / "one.npz", pixels=film(10), actions=moves(actions))
    store = gathered(tmp_path, tmp_path / "one.npz")
    assert_aligned(store, [0, 2, 5])
    assert store.info.recordings == (3,)


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_pieces_have_nearly_every_step_and_share_some_with_neighbours_alone(steps: int) -> None:
    for length in range(steps, 60):
        pieces = take(np.arange(length)[:, None]).pieces(steps)
        held = [set(piece.actions[:, 0].astype(int).tolist()) for piece in pieces]
        left = set(range(length)) - set().union(*held)
        assert len(left) == max(0, length - len(pieces) * steps) <= steps / 10
        assert {len(some) for some in held} == {steps}
        assert all(one.isdisjoint(other) for one, other in zip(held, held[2:], strict=False))
        assert len(pieces) == max(1, math.ceil(round(length / steps - 0.1, 9)))
    assert [piece.first for piece in take(np.zeros((105, 1))).pieces(100)] == [0]  # and not 0 and 5, nearly the same
    assert take(np.zeros((steps, 1))).pieces(steps + 1) == []


@pytest.mark.parametrize("names", [("terminals", "terminals"), ("terminals", "timeouts"), ("timeouts", "timeouts")])
def test_no_piece_crosses_from_one_episode_into_the_next(tmp_path: Path, names: tuple[str, str]) -> None:
    """Frames 0 to 4, 5 to 7, which are too few, 8 to 17, and 18 and 19, laid out as in OGBench's files. Where time ran
    out it may say so apart from where the task was done: taken for one episode, the rows crossed."""
    ends = {name: np.zeros(20, bool) for name in names}
    ends[names[0]][[4, 17]] = ends[names[1]][7] = True
    np.savez(tmp_path / "many.npz", observations=film(20), actions=moves(20), **ends)
    found = takes(tmp_path / "many.npz")
    assert [(one.first, len(one.actions)) for one in found] == [(0, 4), (5, 2), (8, 9), (18, 1)]
    store = gathered(tmp_path, tmp_path / "many.npz")
    assert_aligned(store, [0, 8, 10, 13])
    assert store.info.recordings == (1, 3)


def test_an_episode_of_one_frame_has_nothing_to_learn_from(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", pixels=film(6), actions=moves(6), terminals=[1, 0, 0, 0, 0, 1])
    assert_aligned(gathered(tmp_path, tmp_path / "some.npz"), [1])
    np.savez(tmp_path / "none.npz", pixels=film(2), actions=moves(2), terminals=[1, 1])
    with pytest.raises(BadInput, match="nothing was done; expected two frames of an episode at least; got 2 frames"):
        takes(tmp_path / "none.npz")


def test_files_follow_each_other_and_state_follows_its_frames(tmp_path: Path) -> None:
    for name, first in (("b", 0), ("a", 100)):
        known = np.arange(first, first + 5)[:, None] * [1.0, 2.0]
        np.savez(tmp_path / f"{name}.npz", pixels=film(5, first), actions=moves(4, first), state=known)
    store = gathered(tmp_path, tmp_path / "b.npz", tmp_path / "a.npz", state=[("x", "m"), ("angle", "rad")])
    assert_aligned(store, [0, 100])
    assert store.info.state_names == ("x", "angle") and store.info.state_units == ("m", "rad")
    assert store.data["state"][1, :, 1].tolist() == [200, 202, 204, 206, 208]
    assert store.info.renderer == "camera" and store.info.policy.startswith("recordings ")


def test_pictures_are_the_square_in_the_middle_each_pixel_the_mean_of_its_area() -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :16], picture[:, 48:] = 255, 255  # what is cut off
    picture[:16, 16:32] = np.tile([[0, 100], [100, 200]], (8, 8))[..., None]
    seen = fit(picture, 16)
    assert seen.shape == (16, 16, 3) and seen.dtype == np.uint8
    assert (seen[:8, :8] == 100).all() and seen[8:].max() == seen[:, 8:].max() == 0
    assert fit(seen, 16) is seen
    with pytest.raises(BadInput, match="too small; expected at least 48 x 48 pixels; got 64 x 32"):
        fit(picture, 48)


def test_what_was_interrupted_goes_on_and_other_recordings_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", pixels=film(10), actions=moves(9))

    def pulled(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gathered(tmp_path, tmp_path / "one.npz", progress=pulled)
    assert EpisodeStore.open(tmp_path / "data").missing() == [2]
    done = []
    store = gathered(tmp_path, tmp_path / "one.npz", progress=lambda *counts: done.append(counts))
    assert_aligned(store, [0, 2, 5])  # the last shares frames with one that was there before
    assert done == [(2, 3), (3, 3)]
    for other in (
        {"pixels": film(10), "actions": moves(9, 3)},
        {"pixels": film(10, 1), "actions": moves(9)},  # as of colours the other way round: it said it was done
        {"pixels": film(11), "actions": moves(11), "terminals": np.arange(11) % 10 == 0},
    ):
        np.savez(tmp_path / "two.npz", **other)  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="was made with another policy"):
            gathered(tmp_path, tmp_path / "two.npz")


def test_weights_of_other_bounds_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were saved under the new bounds, and would have had the robot do nine times what was meant."""
    monkeypatch.chdir(tmp_path)
    np.savez("one.npz", pixels=film(62, size=32), actions=moves(61) - 0.1)
    words = "import recorded/arm one.npz --steps 15 --size 32 --low -1 --high"
    main([*words.split(), "1"])
    main(f"train recorded/arm {SHORT} {SMALL}".split())
    shutil.rmtree("data")
    main([*words.split(), "9"])
    assert "runs/train/recorded-arm holds a run of another configuration" in say(
        f"train recorded/arm {SHORT} {SMALL}", capsys
    )


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows were of one frame all along the second time, or it was trained on and held out at once."""
    monkeypatch.chdir(tmp_path)
    np.savez("one.npz", pixels=film(10), actions=moves(9))
    shutil.copy("one.npz", "copy.npz")
    for other in ("one.npz", "copy.npz"):
        with pytest.raises(BadInput, match=f"{other} is there twice; got one.npz with the same in it; name one"):
            gathered(tmp_path, Path("one.npz"), tmp_path / other)


def test_bounds_are_what_was_recorded() -> None:
    one, other = take([[-0.5, 3.0], [0.25, 1.0]]), take([[-0.125, 8.0]], "b.npz")
    assert bounds([one, other]) == ((-0.5, 1.0), (0.25, 8.0))
    with pytest.raises(BadInput, match="action 1 never changes; got 8 throughout; leave it out"):
        bounds([take([[0.0, 8.0], [1.0, 8.0]])])


@pytest.mark.parametrize(
    ("lengths", "block", "best"),
    [
        ([100, 300], 5, 96),  # 335 of 342 windows, as of 300 steps there are four rows
        ([120, 60], 5, 57),
        ([99, 99], 5, 99),
        ([39] * 100 + [45], 5, 39),  # 45 of 3,945 steps were kept
        ([90], 2, 38),
        ([60, 220] * 20, 5, 93),  # 155 of 222 windows of two episodes in rows of 60, as 220 has four of them
        ([90] * 3, 10, 90),
    ],
)
def test_rows_are_as_long_as_makes_most_windows(lengths: list[int], block: int, best: int) -> None:
    found = [take(np.zeros((n, 1)), f"{k}.npz") for k, n in enumerate(lengths)]
    assert best_length(found, block) == best


def test_episodes_that_training_cannot_use_are_refused() -> None:
    """They were imported, and training then asked for longer ones."""
    with pytest.raises(BadInput, match="too short; expected 240 steps, 6 blocks of 40; got at most 90; give a smaller"):
        best_length([take(np.zeros((90, 1)))], 40)


BAD = {
    "no arrays": ({}, "has no pictures; expected pixels or observations; got nothing"),
    "other names": ({"frames": film(5)}, "expected pixels or observations; got frames"),
    "other ends": (
        {"pixels": film(5), "actions": moves(5), "dones": [0, 0, 1, 0, 1]},
        "dones says where episodes end; expected terminals or timeouts; got dones; put true into terminals",
    ),
    "ends said twice": (
        {"pixels": film(5), "actions": moves(5), "terminals": [0, 0, 0, 0, 1], "truncated": [0, 0, 1, 0, 0]},
        "truncated says where episodes end",
    ),
    "true or false": ({"pixels": film(5), "actions": moves(4) > 0}, "expected numbers; got bool"),
    "no actions": ({"pixels": film(5)}, "has no actions"),
    "floats": ({"pixels": film(5) / 255.0, "actions": moves(4)}, "expected uint8 [N, h, w, 3]; got float64"),
    "grey": (
        {"pixels": film(5)[..., :1], "actions": moves(4)},
        "expected uint8 [N, h, w, 3]; got uint8 [5, 16, 16, 1]",
    ),
    "other lengths": (
        {"pixels": film(5), "actions": moves(3)},
        "actions are off; expected [5 or 4, at least 1]; got [3, 1]",
    ),
    "one number": ({"pixels": film(5), "actions": moves(4)[:, 0]}, "got [4]; save actions[:, None]"),
    "nan": ({"pixels": film(5), "actions": moves(4) * np.nan}, "expected finite numbers"),
    "objects": ({"pixels": film(5), "actions": np.array([{}] * 4)[:, None]}, "is no recording"),
    "ends": (
        {"pixels": film(5), "actions": moves(5), "terminals": [True]},
        "expected [5], true or false; got bool [1]",
    ),
    "numbers of episodes": (  # each of its frames ended an episode, and four fifths of a recording were gone
        {"pixels": film(6), "actions": moves(6), "terminals": [0, 0, 1, 1, 2, 2]},
        "terminals are off; expected true or false, 1 or 0; got 2",
    ),
    "ends of NaN": (
        {"pixels": film(5), "actions": moves(5), "timeouts": [0, 0, np.nan, 0, 1]},
        "timeouts are off; expected true or false, 1 or 0; got nan",
    ),
    "numbers of episodes, too few": (
        {"pixels": film(5), "actions": moves(5), "episode_idx": [0, 0, 1]},
        "episode_idx is off; expected [5], whole numbers; got int64 [3]",
    ),
    "lengths of other frames": (
        {"pixels": film(5), "actions": moves(5), "ep_len": [2, 2]},
        "ep_len is off; expected lengths of episodes, 5 frames in all; got int64, 4 in all",
    ),
    "episodes in another order": (
        {"pixels": film(5), "actions": moves(5), "ep_len": [2, 3], "ep_offset": [3, 0]},
        "ep_offset is off; expected episodes one after the other; got [3, 0] ...",
    ),
    "ends, few actions": (
        {"pixels": film(5), "actions": moves(4), "terminals": [False] * 5},
        "expected [5, at least 1]; got [4, 1]",
    ),
    "Fortran": ({"pixels": np.asfortranarray(film(5)), "actions": moves(4)}, "Fortran"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    arrays, said = BAD[name]
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(BadInput) as caught:
        takes(tmp_path / "bad.npz")
    assert said in str(caught.value) and "bad.npz" in str(caught.value)


def test_state_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", pixels=film(5), actions=moves(4), state=moves(5)[:, 0])
    assert takes(tmp_path / "one.npz")[0].state.shape == (5, 0)
    with pytest.raises(BadInput, match=r"state are off; expected \[5, at least 1\]; got \[5\]; save state"):
        takes(tmp_path / "one.npz", state=True)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_is_damaged_is_told_and_what_came_before_is_kept(tmp_path: Path, save: Any) -> None:
    """In its last frames, too, which no row is made of: only at its end is a file's checksum looked at."""
    rng, ends = np.random.default_rng(0), np.isin(np.arange(10), (7, 9))
    for name in ("one", "two"):
        pixels = rng.integers(256, size=(10, 64, 64, 3), dtype=np.uint8)
        save(tmp_path / f"{name}.npz", pixels=pixels, actions=moves(10), terminals=ends)
    content = (tmp_path / "two.npz").read_bytes()
    middle = content.index(b"pixels.npy") + 110_000  # of 122,880
    torn, files = content[:middle] + bytes(20) + content[middle + 20 :], (tmp_path / "one.npz", tmp_path / "two.npz")
    (tmp_path / "two.npz").write_bytes(torn)
    for _ in range(2):  # the second time it once passed for good, as all of its rows were there
        with pytest.raises(BadInput, match="two.npz is no recording"):
            gathered(tmp_path, *files, steps=3)
        assert EpisodeStore.open(tmp_path / "data").missing() == [3, 4, 5]
    (tmp_path / "two.npz").write_bytes(content)
    store = gathered(tmp_path, *files, steps=3)
    with np.load(tmp_path / "two.npz") as file:
        assert np.array_equal(store.data["pixels"][5], [fit(picture, 16) for picture in file["pixels"][4:8]])
    (tmp_path / "two.npz").write_bytes(content[:2000])
    with pytest.raises(BadInput, match="two.npz is no recording"):
        takes(tmp_path / "two.npz")


def test_what_is_done_at_the_last_frame_may_be_anything(tmp_path: Path) -> None:
    """It is often filled up with NaN."""
    done = moves(10)
    done[[4, 9]] = np.nan
    ends = np.isin(np.arange(10), (4, 9))
    np.savez(tmp_path / "one.npz", pixels=film(10), actions=done, terminals=ends, dones=ends)
    assert_aligned(gathered(tmp_path, tmp_path / "one.npz"), [0, 5])


def test_a_camera_s_noise_is_no_change(tmp_path: Path) -> None:
    """Where pictures differ by noise alone, windows were drawn as if something had moved in them."""
    rng = np.random.default_rng(0)
    still, moved = (np.full((11, 16, 16, 3), 100) for _ in range(2))
    moved[5:, :8] = 200
    for name, pixels in {"still": still, "moved": moved}.items():
        seen = np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        np.savez(tmp_path / f"{name}.npz", pixels=seen, actions=moves(10))
    store = gathered(tmp_path, tmp_path / "still.npz", tmp_path / "moved.npz", steps=10)
    drawn = Windows(store, torch.arange(2), 2, 50, 0, moving=1.0)[0]
    assert (drawn["episode"] == 1).all()


def test_a_planner_sees_a_larger_picture_as_its_dataset_has_it(tmp_path: Path) -> None:
    """Whoever asks for that; else it is refused, as one that was cropped otherwise would be seen otherwise."""
    toy_checkpoint(tmp_path / "arm", task="recorded/arm")
    loaded = checkpoint.load(tmp_path / "arm")
    picture = np.random.default_rng(0).integers(256, size=(64, 96, 3), dtype=np.uint8)
    goal = png(picture[::-1])
    session = Session(loaded, Limits(), larger=True)
    session.begin(goal)
    told = session.act(png(picture))
    assert session.seen is not None and np.array_equal(session.seen, fit(picture, 32))
    small = Session(loaded, Limits())
    small.begin(png(fit(picture[::-1], 32)))
    assert small.act(png(fit(picture, 32)))["action"] == told["action"]
    with pytest.raises(BadInput, match="expected an image file of 32 x 32 pixels.*, or serve with --fit"):
        small.begin(goal)
    with pytest.raises(BadInput, match="too small; expected at least 32 x 32 pixels; got 16 x 16"):
        session.begin(png(picture[:16, :16]))


def test_a_mirror_turns_pictures_and_actions_of_which_nobody_knows_the_state(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", pixels=film(10, size=32), actions=np.full((9, 2), 0.5))
    two = ActionSpec((-1.0, -1.0), (1.0, 1.0), ("", ""), 2)
    store = gather("recorded/arm", takes(tmp_path / "one.npz"), tmp_path / "data", two, steps=4, size=32)
    drawn = Windows(store, torch.arange(2), 2, 4, 0).under(MIRROR, 1)[0]
    assert drawn["state"].shape == (4, 2, 0)
    assert (drawn["actions"].unflatten(-1, (2, 2)) == torch.tensor([-0.5, 0.5])).all()


def test_of_a_recording_no_more_is_held_than_its_pictures_as_they_are_scored(tmp_path: Path) -> None:
    """A film of ten minutes took tens of gigabytes at the size of the camera."""
    np.savez(tmp_path / "one.npz", pixels=film(40, size=256), actions=moves(40), terminals=np.arange(40) == 19)
    tracemalloc.start()
    recording = read_recording(tmp_path / "one.npz", 1)
    pixels = recording.pixels(32)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        recording.shape == (256, 256)
        and pixels.shape == (20, 32, 32, 3)
        and (pixels[:, 0, 0, 0] == range(20, 40)).all()
    )
    assert most < 8 * 256 * 256 * 3


def test_bounds_without_rest_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of places of joints: told to stop, the robot would be sent to where 0 is, or near it."""
    monkeypatch.chdir(tmp_path)
    np.savez("one.npz", pixels=film(62, size=32), actions=moves(61) + 0.1)
    for least, warned in (("0", False), ("0.05", True)):
        main(f"import recorded/arm one.npz --steps 15 --size 32 --low {least} --high 1 --out data/{least}".split())
        assert ("0 is rest to a planner" in " ".join(capsys.readouterr().out.split())) == warned


# The commands -------------------------------------------------------------------------------------------------------


def recorded(folder: Path, episodes: int = 6) -> list[str]:
    """Files of a robot whose camera is 48 x 32; their names."""
    rng = np.random.default_rng(0)
    for k in range(episodes):
        pixels = rng.integers(256, size=(31, 32, 48, 3), dtype=np.uint8)
        np.savez(
            folder / f"{k}.npz", pixels=pixels, actions=rng.uniform(-2, 3, (30, 2)), state=rng.normal(size=(31, 1))
        )
    return [f"{k}.npz" for k in range(episodes)]


def say(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    return capsys.readouterr().err


SHORT = "--training.steps 2 --training.batch 4 --training.held-out 0.34 --threads 1 --training.horizon 1"
SMALL = "--model.image-size 32 --model.width 8 --model.latent-dim 8 --model.hidden 16"


def test_from_recordings_to_a_planner_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = " ".join(recorded(tmp_path))
    main(f"import recorded/arm {files} --steps 14 --size 32 --units Nm Nm --state x:m".split())
    out = " ".join(capsys.readouterr().out.split())
    assert "data/recorded-arm: 18 rows of 14 steps from 6 episodes, 0 of 180 steps left out; try" in out
    assert "warning" not in out
    assert "actions are kept within what was recorded: --low -1.9696927 -1.9549985 --high 2.969679 2.9527354" in out
    store = EpisodeStore.open("data/recorded-arm")
    assert store.info.action_units == ("Nm", "Nm") and store.info.state_units == ("m",)
    main(f"train recorded/arm {SHORT} {SMALL}".split())
    out = " ".join(capsys.readouterr().out.split())
    assert "recorded/arm has no simulator: no goals are tried" in out
    assert "try `jepa-mpc serve recorded/arm --checkpoint runs/train/recorded-arm/checkpoint`" in out
    folder = "runs/train/recorded-arm/checkpoint"
    loaded = checkpoint.load(folder, task="recorded/arm")
    assert loaded.renderer == "camera" and loaded.model.action == store.info.action_spec
    assert "recordings" in (tmp_path / folder / "card.md").read_text()
    further = {
        "temporal": "--training.temporal-steps 2 --features 8",
        "prior": "--training.prior-steps 2 --horizon 1 --width 16",
        "slow": "--training.slow-steps 2 --features 8",
        "polish": SHORT,
        "looks": "--training.steps 2 --training.batch 4",
        "join": "--taught runs/looks/recorded-arm/checkpoint --held-out 0.34",
    }
    for name, words in further.items():
        short = "" if "held-out" in words else " --training.held-out 0.34"
        start = "runs/temporal/recorded-arm/checkpoint" if name == "slow" else folder
        main(f"{name} recorded/arm --checkpoint {start} {words}{short} --threads 1".split())
    said = " ".join(capsys.readouterr().out.split())
    assert "try `jepa-mpc serve recorded/arm --checkpoint runs/temporal/recorded-arm/checkpoint`" in said
    main(f"surprise 3.npz --task recorded/arm --checkpoint {fitted(folder)}".split())
    assert "scaled to 32 x 32" in capsys.readouterr().out
    larger = []
    monkeypatch.setattr("planner.adapters.session.Session", lambda *_, **given: larger.append(given["larger"]))
    monkeypatch.setattr("planner.adapters.server.listen", stop_at_once)
    for fit_too in ("", " --fit"):
        with pytest.raises(SystemExit, match="130"):
            main(f"serve recorded/arm --checkpoint {folder} --port 0 --threads 1{fit_too}".split())
    assert larger == [False, True]


def fitted(folder: str) -> str:
    """A checkpoint's folder with thresholds of surprise."""
    facts = {"task": "recorded/arm", "renderer": "camera", "policy": "", "seed": 0, "episodes": 9, "length": 30}
    sha256 = checkpoint.load(folder).sha256
    surprise.save(Path(folder), surprise.Thresholds(sha256, **facts, steps=2, unusual=1.0, impossible=2.0))  # type: ignore[arg-type]
    return folder


def stop_at_once(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_needs_a_simulator_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    toy_checkpoint(tmp_path / "arm", task="recorded/arm")
    for words in ("evaluate", "plan recorded/arm --goal goal.png", "check", "collect"):
        words = words if " " in words else f"{words} recorded/arm"
        given = "" if words.split()[0] in ("check", "collect") else " --checkpoint arm"
        assert "recorded/arm has no simulator; train, rehearse, serve and surprise need none" in say(
            words + given, capsys
        ), words
    assert "no dataset at data/recorded-arm" in say("train recorded/arm", capsys)
    assert "no dataset at data/recorded-arm" in say("pretrain recorded/arm", capsys)
    assert "recorded/NAME of letters, digits, _ and -; got 'recorded/v1.2'" in say("train recorded/v1.2", capsys)


def test_a_monitor_learns_what_is_ordinary_from_rows_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last ones: in the others every picture is the same here, and energies would be nearly none."""
    monkeypatch.chdir(tmp_path)
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "arm", task="recorded/arm"))
    facts: dict[str, Any] = {"task": "recorded/arm", "renderer": "camera", "policy": "recordings 123", "steps": 15}
    store = dot_store(tmp_path / "data/recorded-arm", episodes=120, **facts)
    for row in range(21):
        store.write(row, np.zeros((16, 32, 32, 3), np.uint8), np.zeros((15, 2)), np.zeros((16, 3)))
    main(["surprise", "recorded/arm", "--fit", "--checkpoint", "arm", "--held-out", "0.825"])
    found = surprise.load(tmp_path / "arm", loaded.sha256)
    assert (found.episodes, found.length, found.renderer, found.policy) == (99, 15, "camera", "recordings 123")
    films = [[store.data[key][row].numpy() for key in ("pixels", "actions")] for row in range(21, 120)]
    greatest = sorted(np.nanmax(surprise.film_energies(loaded.model, *film, 2)) for film in films)
    assert found.impossible == greatest[98] and found.unusual == greatest[94]
    main(["surprise", "data/recorded-arm", "--checkpoint", "arm"])
    assert "1 normal" in capsys.readouterr().out
    fit = "surprise recorded/arm --fit --checkpoint arm"
    told = "too few rows are held out; expected at least 99; got 6; train with a greater --training.held-out"
    assert told in say(fit, capsys)
    assert "held_out is off; expected above 0 and below 1; got 2" in say(f"{fit} --held-out 2", capsys)
    assert "--length is not read with --fit of recordings; leave it out" in say(f"{fit} --length 9", capsys)
    assert "--held-out is not read with --fit; leave it out" in say("surprise TwoRoom --fit --held-out 0.5", capsys)


def test_recordings_that_are_cut_otherwise_are_the_same(tmp_path: Path) -> None:
    """Which rows are held out hangs on how long they are: polished on both, a model had learned what it was held to."""
    np.savez(tmp_path / "one.npz", pixels=film(90, size=32), actions=moves(90))
    np.savez(tmp_path / "two.npz", pixels=film(90, 100, size=32), actions=moves(90, 100))

    def imported(name: str, steps: int, *files: str) -> EpisodeStore:
        found = [take for file in files for take in takes(tmp_path / file)]
        found = [replace(take, actions=np.repeat(take.actions, 2, 1)) for take in found]
        return gather("recorded/arm", found, tmp_path / name, toys.SPEC, steps=steps, size=32)

    cuts = [imported(f"cut{steps}", steps, "one.npz") for steps in (6, 8, 9, 10, 20, 41)]
    runs = [runs_of(moves_of(store), store.info.recordings) for store in cuts]
    assert all(copies(one, other) == 1 for one in runs for other in runs)
    old, new, other = imported("old", 30, "one.npz"), imported("new", 41, "one.npz"), imported("other", 41, "two.npz")
    config = TrainConfig(steps=2, batch=4, horizon=1, held_out=0.25)
    told = "is no other; expected recordings of its own; got 1 that .*old has too; name each dataset once, and"
    for twice in (new, old):  # the very same dataset was to be collected again with another seed
        with pytest.raises(BadInput, match=told):
            polish(toy_model(), [old, twice], config, tmp_path / "run", encoder="w", tensorboard=False)
    assert polish(toy_model(), [old, other], config, tmp_path / "run", encoder="w", tensorboard=False) is not None


@pytest.mark.parametrize("opening", [0, 15])
def test_recordings_that_are_alike_are_no_copies(opening: int) -> None:
    """In a world of few states without noise single steps come twice, and a robot may always begin alike."""
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 100, (6, 80)).astype(np.uint64)
    steps[:, :opening] = steps[0, :opening]
    apart = runs_of(steps, (2, 2, 2))
    assert np.isin(steps[0], steps[2:]).mean() > 0.5 and copies(apart) == copies(apart[:1], apart[1:]) == 0
    assert copies([*apart, apart[0]]) == 2 and copies(apart[1:], apart) == 2
    assert copies(apart * 3000) == 9000, "in seconds: each looked through all, and ten thousand took hours"
    assert copies(runs_of(np.zeros((6, 80), np.uint64), ())) == 0, "nothing ever moves"


def test_what_is_odd_about_recordings_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same film a little shorter was trained on and held out; of a dead camera errors were of no size at all."""
    monkeypatch.chdir(tmp_path)
    pixels, actions = film(90, size=32), moves(90)
    np.savez("one.npz", pixels=pixels, actions=actions)
    np.savez("again.npz", pixels=pixels[10:], actions=actions[10:])
    np.savez("dead.npz", pixels=np.zeros_like(pixels), actions=actions)
    for files, told in (
        ("one.npz again.npz", "warning: 2 recordings have much in common with others: if one is held out"),
        ("dead.npz", "warning: the picture changes in 0.0% of the steps; was the camera on?"),
        ("one.npz dead.npz", ""),
    ):
        main(f"import recorded/arm {files} --steps 20 --size 32 --out out{len(list(tmp_path.iterdir()))}".split())
        out = " ".join(capsys.readouterr().out.split())
        assert told in out and ("warning" in out) == bool(told)


def test_bounds_that_were_told_make_a_dataset_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were rounded, and new recordings did not fit the old ones' model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, most in (("old", 1), ("new", 0.5)):
        actions = rng.uniform(-most, most, (90, 2))
        np.savez(f"{name}.npz", pixels=film(90, size=32), actions=actions)
    words = "--steps 20 --size 32 --units rad/s rad/s"
    main(f"import recorded/arm old.npz {words} --out old".split())
    told = capsys.readouterr().out.split("recorded: ")[1].split()
    old = EpisodeStore.open("old").info.action_spec
    main([*f"import recorded/arm new.npz {words} --out new".split(), *told])
    assert EpisodeStore.open("new").info.action_spec == old
    main(["import", "recorded/arm", "new.npz", "--steps", "20", "--size", "32", "--out", "other"])
    with pytest.raises(BadInput, match=r"other does not fit the model; expected low \(-0\.") as caught:
        EpisodeStore.open("other").check_fits(32, old)
    do = str(caught.value).split("import it with ")[1].split()
    main([*["import", "recorded/arm", "new.npz", "--steps", "20", "--out", "third"], *do])
    EpisodeStore.open("third").check_fits(32, old)
    wider = replace(old, high=(9.0, *old.high[1:]))  # with --high alone bounds are half missing
    told = r"expected high \(9.0, .*; import it with --size 32 --low -0.* --high 9.0 .* --block 5"
    with pytest.raises(BadInput, match=told):
        EpisodeStore.open("old").check_fits(32, wider)


def test_rows_that_a_checkpoint_may_have_learned_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one file less other rows are the last ones, and were said to be held out from what had learned them."""
    monkeypatch.chdir(tmp_path)
    files = recorded(tmp_path)
    main(f"import recorded/arm {' '.join(files)} --steps 14 --size 32".split())
    main(f"train recorded/arm {SHORT} {SMALL}".split())
    card = Path("runs/train/recorded-arm/checkpoint/card.md").read_text()
    assert "18 episodes of 14 steps, 6 of them held out" in card
    main(f"import recorded/arm {' '.join(files[:-1])} --steps 14 --size 32 --out fewer".split())
    words = "rehearse recorded/arm --checkpoint runs/train/recorded-arm/checkpoint --threads 1 --steps 1 --windows 9"
    capsys.readouterr()
    for more, told in (
        ("--held-out 0.34", ""),
        ("--held-out 0.1", ""),
        ("--held-out 0.5", "warning: 9 rows are held out here, and training held out 6"),
        ("--held-out 0.34 --data fewer", "the checkpoint's card does not name these recordings"),
    ):
        main(f"{words} {more}".split())
        out = " ".join(capsys.readouterr().out.split())
        assert told in out and ("warning" in out or "does not name" in out) == bool(told)


def test_halves_of_one_recording_share_no_step(tmp_path: Path) -> None:
    """What is to judge the agreement of two encoders had given the distance at which they agree."""
    model, seen = toy_model(), []

    class Watched(Pictures):
        def __init__(self, store: EpisodeStore, rows: torch.Tensor, *more: Any) -> None:
            seen.append(rows.tolist())
            super().__init__(store, rows, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("planner.training.looks.Pictures", Watched)
        config = TrainConfig(batch=4, held_out=0.5)
        store = dot_store(tmp_path / "one", episodes=12, recordings=(12,))
        agreement(model.encoder, model.encoder, store, config)
        agreement(model.encoder, model.encoder, dot_store(tmp_path / "two", episodes=12, recordings=(9, 3)), config)
        agreement(model.encoder, model.encoder, dot_store(tmp_path / "three", episodes=12), config)
    assert seen == [[6, 7], [9, 10, 11], [9], [11], [6, 7, 8], [9, 10, 11]]
    with pytest.raises(BadInput, match="too few episodes; expected two held out at least, and three of one recording"):
        agreement(model.encoder, model.encoder, store, replace(config, held_out=0.2))


def test_bad_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path, 1)
    assert "no recording at none.npz" in say("import recorded/arm none.npz", capsys)
    assert "expected 31 steps; got at most 30 steps; give fewer --steps" in say(
        "import recorded/arm 0.npz --size 32 --steps 31", capsys
    )
    assert "a multiple of 16; got 30" in say("import recorded/arm 0.npz --size 30", capsys)
    assert "0.npz: pictures are too small; expected 64 pixels a side; got 32; give --size 32" in say(
        "import recorded/arm 0.npz --steps 10", capsys
    )
    assert not Path("data").exists()  # which the size that is right would then not have fitted
    assert "--low and --high, or neither" in say("import recorded/arm 0.npz --low -1 -1", capsys)
    small = "import recorded/arm 0.npz --steps 10 --size 32"
    assert "0.npz: actions are out of bounds" in say(f"{small} --low -1 -1 --high 1 1", capsys)
    assert "number of actions is off; expected 1, as there are bounds; got 2" in say(
        f"{small} --low -9 --high 9", capsys
    )
    assert "units are off; expected 2, as there are actions; got 1" in say(f"{small} --units Nm", capsys)
    assert "no files; expected one file at least; name them before" in say(
        "import recorded/arm --units a 0.npz", capsys
    )
    assert "state x is there twice" in say(f"{small} --state x x", capsys)
    assert "2 quantities, as there are names; got 1" in say(f"{small} --state x y", capsys)
    assert "unknown task" in say("import arm 0.npz", capsys)
    for option in ("low -1", "block 5", "state x"):
        said = say(f"import TwoRoom 0.npz --{option}", capsys)
        assert f"TwoRoom has actions and a state of its own; leave out --{option.split()[0]}" in said
    np.savez("other.npz", pixels=film(31, size=32), actions=moves(30))
    said = say("import recorded/arm 0.npz other.npz --steps 10 --size 32", capsys)
    assert "files differ; expected 2 actions and 0 of state in 0.npz; got 1 actions and 0 of state in other.npz" in said


def test_of_a_task_that_there_is_the_actions_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of somebody's download of a benchmark's data."""
    monkeypatch.chdir(tmp_path)
    np.savez("one.npz", pixels=film(31, size=32), actions=np.full((30, 2), 0.5))
    main(["import", "TwoRoom", "one.npz", "--steps", "15", "--size", "32", "--out", "data/theirs"])
    assert "try `jepa-mpc train TwoRoom --data data/theirs`" in " ".join(capsys.readouterr().out.split())
    assert EpisodeStore.open("data/theirs").info.action_spec == envs.TASKS["TwoRoom"].action_spec()


def test_the_guide_works_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/recordings.md").read_text(), re.DOTALL)
    (program,), (typed,) = ([text for kind, text in blocks if kind == wanted] for wanted in ("python", "bash"))
    exec(compile(program, "recordings.md", "exec"), {})
    commands = [words for line in typed.splitlines() if (words := shlex.split(line, comments=True))]
    assert [words[1] for words in commands] == ["import", "train", "rehearse", "serve"]
    smaller = {"train": SHORT.split(), "rehearse": ["--windows", "9", "--threads", "1"]}
    for words in commands[:3]:
        files = [sorted(str(path) for path in Path().glob(word)) if "*" in word else [word] for word in words[1:]]
        main([*chain(*files), *smaller.get(words[1], [])])
    assert EpisodeStore.open("data/recorded-arm").info.steps == 99  # of 99 and of 139 in each file
    assert type(_parse(commands[3][1:])).__name__ == "Serve"
    assert Path("runs/rehearse/recorded-arm/rehearsal.png").stat().st_size > 1000
