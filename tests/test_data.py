"""Datasets: windows hold what they say, damage is seen, and a file that lies is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import MIRROR, dot_episode, dot_store, flip_byte, info

from planner.data import EpisodeStore, Windows, split_rows, write_atomically
from planner.errors import BadInput

ROWS = torch.arange(6)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    """Also after the dataset was opened anew, and in the files, not only in memory."""
    store = dot_store(tmp_path)
    again = EpisodeStore.open(tmp_path)
    assert again.info == store.info
    for row in (0, 5):
        pixels, actions, states = dot_episode(store.info, row)
        np.testing.assert_array_equal(again.data["pixels"][row].numpy(), pixels)
        np.testing.assert_array_equal(again.data["actions"][row].numpy(), actions.astype(np.float32))
        np.testing.assert_array_equal(again.data["state"][row].numpy(), states.astype(np.float32))
    assert again.missing() == []
    again.verify()


@pytest.mark.parametrize("frames", [2, 4])
def test_windows_hold_the_right_frames_and_actions(tmp_path: Path, frames: int) -> None:
    """Found again by naive indexing: every window is one stretch of one episode, actions in time order, in [-1, 1]."""
    store = dot_store(tmp_path)
    rows = torch.tensor([1, 4])
    block, low, high = store.info.block, np.array(store.info.action_low), np.array(store.info.action_high)
    batch = Windows(store, rows, frames, batch=16, seed=3)[7]
    found = set()
    for window in batch:
        row, start = next(
            (row, start)
            for row in rows.tolist()
            for start in range(store.info.steps - (frames - 1) * block + 1)
            if torch.equal(store.data["state"][row, start], window["state"][0])
        )
        found.add((row, start))
        for f in range(frames):
            assert torch.equal(window["pixels"][f], store.data["pixels"][row, start + f * block])
            assert torch.equal(window["state"][f], store.data["state"][row, start + f * block])
        for f in range(frames - 1):
            physical = store.data["actions"][row, start + f * block : start + (f + 1) * block].numpy()
            expected = ((physical - low) / (high - low) * 2 - 1).flatten()
            np.testing.assert_allclose(window["actions"][f].numpy(), expected, atol=1e-6)
    assert {row for row, _ in found} == {1, 4} and len(found) > 8


def test_windows_under_a_symmetry_hold_what_the_mirror_shows(tmp_path: Path) -> None:
    """Found again by naive indexing of the dataset; other windows than the plain ones, of the same episodes."""
    store = dot_store(tmp_path)
    plain = Windows(store, torch.tensor([1, 4]), 3, batch=16, seed=3, moving=0.5)
    windows, block = plain.under(MIRROR, seed=4), store.info.block
    batch, before = windows[7], plain[7]
    assert set(batch["episode"].unique().tolist()) == {1, 4} and not torch.equal(batch["state"], before["state"])
    for window in batch:
        row = int(window["episode"][0])
        start = int(torch.nonzero((store.data["state"][row][:, 2] - window["state"][0, 2]).abs() < 1e-6).item())
        for f in range(3):
            assert torch.equal(window["pixels"][f], store.data["pixels"][row, start + f * block].flip(1))
            x, y, heading = store.data["state"][row, start + f * block]
            torch.testing.assert_close(window["state"][f], torch.stack([1 - x, y, heading]))
        for f in range(2):
            physical = store.data["actions"][row, start + f * block : start + (f + 1) * block] * torch.tensor([-1, 1])
            torch.testing.assert_close(window["actions"][f], store.info.action_spec.encode(physical))
    torch.testing.assert_close(plain[7]["state"], before["state"])


def test_a_symmetry_turns_pictures_or_is_given_the_latents_of_turned_ones(tmp_path: Path) -> None:
    """Latents of other pictures as they were would be taught beside turned actions."""
    store = dot_store(tmp_path)
    pictures, latents = (Windows(store, ROWS, 3, 8, seed=0, latents=given) for given in (None, torch.zeros(1)))
    with pytest.raises(BadInput, match="these are of pixels"):
        pictures.under(MIRROR, 1, torch.zeros(1))
    with pytest.raises(BadInput, match="these are of latents"):
        latents.under(MIRROR, 1)
    every_frame = torch.zeros(6 * 31, 1)  # the plain windows' latents, by mistake
    with pytest.raises(BadInput, match="expected 42 latents; got 186; .*block-th frame"):
        latents.under(MIRROR, 1, every_frame)


@pytest.mark.parametrize("steps", [30, 32])  # the last frames of an episode may be no whole block away
@pytest.mark.parametrize("moving", [0.0, 1.0])
def test_windows_of_few_latents_are_the_same_windows(tmp_path: Path, steps: int, moving: float) -> None:
    """Latents of every fifth frame alone: each window starts there, and its actions and states are those around."""
    store = dot_store(tmp_path, steps=steps)
    block, frames = store.info.block, 3
    # A latent that says which frame it is of.
    names = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(0, steps + 1, block), indexing="ij"), -1)
    windows = Windows(store, torch.tensor([0, 5]), frames, 64, seed=1, moving=moving, latents=torch.zeros(1))
    batch = windows.under(MIRROR, seed=2, latents=names.flatten(0, 1))[0]
    found = set()
    for window in batch:
        row, start = window["latents"][0].tolist()
        found.add((row, start))
        assert window["latents"].tolist() == [[row, start + f * block] for f in range(frames)]
        assert (window["episode"] == row).all()
        torch.testing.assert_close(window["state"], MIRROR.state(store.data["state"][row, start::block][:frames]))
        first = MIRROR.action(store.data["actions"][row, start : start + block])
        torch.testing.assert_close(window["actions"][0], store.info.action_spec.encode(first))
    assert {row for row, _ in found} == {0, 5}
    assert {start for _, start in found} == set(range(0, steps - 2 * block + 1, block))


def test_windows_of_few_latents_are_drawn_where_the_picture_changes(tmp_path: Path) -> None:
    store = dot_store(tmp_path)
    for row in range(1, 6):
        store.data["pixels"][row] = store.data["pixels"][row, :1].clone()
    still = torch.zeros(6 * 7, 1)
    windows = Windows(store, ROWS, 3, 2000, seed=0, moving=0.5, latents=torch.zeros(1)).under(MIRROR, 1, still)
    drawn = windows[0]["episode"][:, 0]
    assert (drawn == 0).double().mean() == pytest.approx(0.5 + 0.5 / 6, abs=0.04)


def test_windows_reach_both_ends_of_an_episode(tmp_path: Path) -> None:
    store = dot_store(tmp_path, episodes=1)
    windows = Windows(store, torch.arange(1), 2, batch=64, seed=0)
    headings = torch.cat([windows[i]["state"][..., 2] for i in range(20)])
    assert headings.min() == store.data["state"][0, 0, 2]
    assert headings.max() == store.data["state"][0, -1, 2]


def test_a_batch_is_a_pure_function_of_seed_and_index(tmp_path: Path) -> None:
    """An interrupted training relies on it: asked for out of order, twice, or of a new object, it is the same."""
    store = dot_store(tmp_path)
    windows = Windows(store, ROWS, 3, batch=8, seed=5)
    straight = [windows[i] for i in range(4)]
    torch.manual_seed(99)
    fresh = Windows(EpisodeStore.open(tmp_path), ROWS, 3, batch=8, seed=5)
    for i in (3, 0, 2, 1, 1):
        assert (fresh[i] == straight[i]).all()
    assert not torch.equal(straight[0]["state"], straight[1]["state"])
    assert not torch.equal(Windows(store, ROWS, 3, batch=8, seed=6)[0]["state"], straight[0]["state"])


def test_windows_longer_than_the_episodes_are_refused(tmp_path: Path) -> None:
    store = dot_store(tmp_path, steps=10)
    Windows(store, ROWS, 3, batch=2, seed=0)[0]
    with pytest.raises(BadInput, match="longer than the episodes.*at most 10 steps.*15"):
        Windows(store, ROWS, 4, batch=2, seed=0)


def test_no_episodes_to_draw_from(tmp_path: Path) -> None:
    """A dataset of one episode goes to validation whole; training on nothing ended in a traceback."""
    store = dot_store(tmp_path, episodes=1)
    rows, _ = split_rows(store.info, 0.05)
    with pytest.raises(BadInput, match="too few episodes"):
        Windows(store, rows, 2, batch=2, seed=0)


@pytest.mark.parametrize(
    ("episodes", "share", "held_out"), [(100, 0.05, 5), (10, 0.01, 1), (7, 0.5, 4), (800, 0.05, 40)]
)
def test_the_split_is_by_whole_episodes(episodes: int, share: float, held_out: int) -> None:
    fit, check = split_rows(info(episodes=episodes), share)
    assert len(check) == held_out
    assert sorted(fit.tolist() + check.tolist()) == list(range(episodes))


@pytest.mark.parametrize(
    ("recordings", "share", "fit", "check"),
    [
        ((3, 3, 3, 3), 0.25, range(9), range(9, 12)),
        ((4,) * 5, 0.05, range(16), range(16, 20)),  # the last recording, though a row would be enough
        ((50, 50), 0.05, range(94), range(95, 100)),  # it would be half of them: row 94 shares steps with row 95
        ((4, 4, 4), 0.5, range(8), range(8, 12)),  # a quarter, where two thirds are as near
        ((11, 1), 0.25, range(8), range(9, 12)),  # one row is less than half of what was asked for
        ((10, 2), 0.25, range(10), range(10, 12)),
        ((1000, 1000, 1), 0.05, range(1900), range(1901, 2001)),
        ((1, 11), 0.25, range(8), range(9, 12)),
        ((12,), 0.25, range(8), range(9, 12)),
        ((2,), 0.25, range(0), range(1, 2)),
    ],
)
def test_no_recording_is_trained_on_and_held_out(
    recordings: tuple[int, ...], share: float, fit: range, check: range
) -> None:
    """Neighbouring rows of one recording share steps: held out, they had been learned by heart."""
    rows = split_rows(info(episodes=sum(recordings), recordings=recordings), share)
    assert [some.tolist() for some in rows] == [list(fit), list(check)]


@pytest.mark.parametrize("key", ["pixels", "actions", "state", "checksum"])
def test_one_flipped_byte_is_found(tmp_path: Path, key: str) -> None:
    dot_store(tmp_path)
    file = tmp_path / "episodes" / f"{key}.memmap"
    flip_byte(file, file.stat().st_size // 2)
    store = EpisodeStore.open(tmp_path)
    with pytest.raises(BadInput, match=r"episode 3 was altered.*make it again") as caught:
        store.verify()
    assert str(tmp_path) in str(caught.value)


def test_an_unfinished_dataset_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, info())
    assert store.missing() == list(range(6))
    for row in (0, 2):
        store.write(row, *dot_episode(store.info, row))
    assert EpisodeStore.open(tmp_path).missing() == [1, 3, 4, 5]
    with pytest.raises(BadInput, match=r"not complete; expected 6 episodes; got 2; run the same command"):
        store.verify()


def test_a_row_counts_only_once_its_checksum_is_there(tmp_path: Path) -> None:
    """What a process killed in the middle of an episode leaves: everything but the checksum."""
    store = dot_store(tmp_path)
    store.data["checksum"][2] = 0
    assert EpisodeStore.open(tmp_path).missing() == [2]


@pytest.mark.parametrize("key", ["pixels", "actions", "state", "checksum"])
@pytest.mark.parametrize("change", ["cut", "longer", "gone"])
def test_a_truncated_file_is_refused(tmp_path: Path, key: str, change: str) -> None:
    dot_store(tmp_path)
    file = tmp_path / "episodes" / f"{key}.memmap"
    content = file.read_bytes()
    file.unlink()
    if change != "gone":
        file.write_bytes(content[:-1] if change == "cut" else content + b"\0")
    with pytest.raises(BadInput, match=rf"damaged: {key}.memmap; expected {len(content)} bytes; got \d+") as caught:
        EpisodeStore.open(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shape": [6]}'])
def test_the_library_s_own_description_is_not_needed(tmp_path: Path, content: str) -> None:
    """A damaged `meta.json` ended in a traceback, and one with another dtype was believed."""
    dot_store(tmp_path)
    (tmp_path / "episodes" / "meta.json").write_text(content)
    EpisodeStore.open(tmp_path).verify()


def test_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no dataset at .*nothing; expected .*dataset.json; make one: "):
        EpisodeStore.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown keys in dataset.json; got colour"),
        ({"format": 2}, "format is off; expected 1; got 2"),
        ({"format": None}, "format is off; expected 1; got None"),
        ({"recordings": [2, 3]}, "recordings are off in dataset.json; expected 6 rows; got"),
        ({"recordings": [7, -1]}, "recordings are off in dataset.json"),
        ({"recordings": ["6"]}, "dataset.json is damaged"),
        ({"episodes": "6"}, "episodes is off in dataset.json; expected a whole number; got '6'"),
        ({"episodes": 7}, "damaged: pixels.memmap"),
        ({"steps": 30.0}, "steps is off"),
        ({"size": -32}, "size is off"),
        ({"seed": -1}, "seed is off"),
        ({"block": 0}, "block is off"),
        ({"state_names": None}, "is damaged"),
        ({"action_high": ["a", "b"]}, "is damaged"),
        ({"action_high": [-2.0, -2.0]}, "bounds are off"),
    ],
)
def test_a_description_that_is_off(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    dot_store(tmp_path)
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BadInput, match=message) as caught:
        EpisodeStore.open(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe{}"])
def test_a_description_that_is_no_description(tmp_path: Path, content: bytes) -> None:
    dot_store(tmp_path)
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        EpisodeStore.open(tmp_path)


def test_a_description_with_a_key_missing(tmp_path: Path) -> None:
    dot_store(tmp_path)
    file = tmp_path / "dataset.json"
    facts = json.loads(file.read_text())
    del facts["renderer"]
    file.write_text(json.dumps(facts))
    with pytest.raises(BadInput, match=r"dataset.json is damaged.*renderer"):
        EpisodeStore.open(tmp_path)


def test_an_old_dataset_does_not_pass_for_a_new_one(tmp_path: Path) -> None:
    """Where only `dataset.json` had been removed, the old episodes still had checksums and counted as collected."""
    dot_store(tmp_path)
    (tmp_path / "dataset.json").unlink()
    store = EpisodeStore.create(tmp_path, info(seed=1, episodes=4))
    assert store.missing() == [0, 1, 2, 3]
    assert not store.data["pixels"].any()


def test_the_description_round_trips(tmp_path: Path) -> None:
    facts = info(seed=12, versions={"torch": "2"})
    assert EpisodeStore.create(tmp_path, facts).info == facts
    assert dataclasses.asdict(facts)["format"] == 1


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "note.txt"
    write_atomically(file, "old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("planner.data.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file], "half a file was left behind, where the disk was full already"


def test_a_dataset_may_be_named_by_a_string(tmp_path: Path) -> None:
    """It was a TypeError: unsupported operand type(s) for /: 'str' and 'str'."""
    made = EpisodeStore.create(str(tmp_path / "d"), info())
    assert made.path == EpisodeStore.open(str(tmp_path / "d")).path == tmp_path / "d"
    with pytest.raises(BadInput, match="no dataset at"):
        EpisodeStore.open(str(tmp_path / "nothing"))


def test_moving_windows_are_drawn_where_the_picture_changes(tmp_path: Path) -> None:
    """One episode of six moves: a share of the windows comes from it alone, the rest from anywhere."""
    store = dot_store(tmp_path)
    for row in range(1, 6):
        store.data["pixels"][row] = store.data["pixels"][row, :1].clone()
    drawn = Windows(store, torch.arange(6), frames=3, batch=2000, seed=0, moving=0.5)[0]["episode"][:, 0]
    assert (drawn == 0).double().mean() == pytest.approx(0.5 + 0.5 / 6, abs=0.04)
    still = Windows(store, torch.arange(1, 6), frames=3, batch=50, seed=0, moving=1.0)[0]["episode"]
    assert still.min() >= 1, "where nothing moves at all, windows still come from the rows asked for"


def test_moving_windows_stay_inside_their_episodes(tmp_path: Path) -> None:
    windows = Windows(dot_store(tmp_path), torch.tensor([1, 4]), frames=4, batch=500, seed=3, moving=1.0)
    batch = windows[0]
    assert set(batch["episode"].unique().tolist()) == {1, 4}
    assert torch.equal(batch["state"], windows[0]["state"])
    heading = batch["state"][..., 2].diff(dim=1)  # grows evenly within an episode of the dot, jumps between two
    assert torch.allclose(heading, heading[:1, :1].expand_as(heading), atol=1e-4)
