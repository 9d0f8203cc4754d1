"""Recordings in HDF5, and episodes that are told apart in other ways than by flags."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from toys import toy_checkpoint

from planner.cli import main
from planner.data import EpisodeStore
from planner.errors import BadInput
from planner.recordings import takes


def film(frames: int, first: int = 0, size: int = 16) -> np.ndarray:
    """Pictures whose red says which frame they are and whose green and blue say that channels were not mixed."""
    pixels = np.zeros((frames, size, size, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(first, first + frames)[:, None, None], 50, 200
    return pixels


def moves(actions: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + actions, dtype=np.float32)[:, None] / 256


def hdf5(path: Path, arrays: dict[str, Any], **packing: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **packing)
    return path


def assert_as_filmed(found: list[Any], firsts: list[int], lengths: list[int]) -> None:
    """Episodes of so many actions, whose pictures begin at these frames."""
    assert [len(one.actions) for one in found] == lengths
    for one, first in zip(found, firsts, strict=True):
        pictures = np.stack(list(one.pictures()))
        assert np.array_equal(pictures, film(len(one.actions) + 1, first))
        assert np.array_equal(one.actions, moves(len(one.actions), first))


@pytest.mark.parametrize("packing", [{}, {"chunks": (3, 16, 16, 3), "compression": "gzip"}])
def test_one_file_of_arrays_as_stable_worldmodel_has_it(tmp_path: Path, packing: dict[str, Any]) -> None:
    """Actions at the ends are NaN there, and `terminated` is true nowhere, or at other frames."""
    done, terminated = moves(12), np.zeros(12, bool)
    done[[4, 11]], terminated[2] = np.nan, True
    path = hdf5(tmp_path / "play.h5", {"pixels": film(12)}, **packing)
    with h5py.File(path, "a") as file:
        file["action"], file["terminated"] = done, terminated
        file["ep_len"], file["ep_offset"] = [5, 7], [0, 5]
    assert_as_filmed(takes(path), [0, 5], [4, 6])


def test_pictures_may_have_their_channels_first(tmp_path: Path) -> None:
    turned = film(7).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "one.npz", pixels=turned, actions=moves(6))
    hdf5(tmp_path / "one.h5", {"pixels": turned, "action": moves(6)})
    for path in (tmp_path / "one.npz", tmp_path / "one.h5"):
        assert_as_filmed(takes(path), [0], [6])


@pytest.mark.parametrize(
    "said",
    [
        {"episode_idx": [3, 3, 3, 7, 7, 7, 7, 0, 0, 0]},
        {"episode_index": np.array([[0]] * 3 + [[1]] * 4 + [[2]] * 3)},
        {"ep_len": [3, 4, 3]},
        {"terminals": np.isin(np.arange(10), (2, 6, 9))},
    ],
    ids=lambda said: next(iter(said)),
)
def test_episodes_are_told_apart_by_any_of_these(tmp_path: Path, said: dict[str, Any]) -> None:
    """A number of the episode at each frame was not read: all of them were taken for one."""
    np.savez(tmp_path / "many.npz", pixels=film(10), actions=moves(10), **said)
    hdf5(tmp_path / "many.hdf5", {"pixels": film(10), "actions": moves(10)} | said)
    for path in (tmp_path / "many.npz", tmp_path / "many.hdf5"):
        assert_as_filmed(takes(path), [0, 3, 7], [2, 3, 2])


def robomimic(path: Path, cameras: tuple[str, ...] = ("agentview_image",)) -> Path:
    """Eleven episodes, each a group, of which what is seen a step later is there, too."""
    arrays: dict[str, Any] = {"mask/train": np.array([b"demo_0"])}
    for k in range(11):
        demo = f"data/demo_{k}"
        arrays |= {f"{demo}/actions": moves(5, 10 * k), f"{demo}/states": np.full((5, 3), float(k))}
        arrays |= {f"{demo}/dones": np.arange(5) >= 3}
        arrays |= {f"{demo}/obs/{camera}": film(5, 10 * k + shift) for shift, camera in enumerate(cameras)}
        arrays |= {f"{demo}/next_obs/{camera}": film(5, 10 * k + 1) for camera in cameras}
    return hdf5(path, arrays)


def test_a_group_an_episode_as_robomimic_has_it(tmp_path: Path) -> None:
    """In the order of their numbers: demo_10 came before demo_2. `dones` may be true from the first success on."""
    path = tmp_path / "demo.hdf5"
    found = takes(robomimic(path), state=True)
    assert_as_filmed(found, [10 * k for k in range(11)], [4] * 11)
    assert [one.state[0, 0] for one in found] == list(range(11))


def test_of_several_cameras_one_is_chosen(tmp_path: Path) -> None:
    path = hdf5(
        tmp_path / "aloha.hdf5",
        {"action": moves(6)} | {f"observations/images/{name}": film(6, k) for k, name in enumerate(("high", "wrist"))},
    )
    with pytest.raises(BadInput, match="has several cameras; .*got observations/images/high, observations/images/wris"):
        takes(path)
    for name in ("wrist", "observations/images/wrist"):
        pictures = np.stack(list(takes(path, camera=name)[0].pictures()))
        assert np.array_equal(pictures, film(6, 1))
    with pytest.raises(BadInput, match="no such camera; expected observations/images/high, .*got left"):
        takes(path, camera="left")


def test_an_npz_file_may_call_its_pictures_anything_if_they_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", wrist=film(5), actions=moves(4))
    assert_as_filmed(takes(tmp_path / "one.npz", camera="wrist"), [0], [4])
    with pytest.raises(BadInput, match="has no pictures; expected front; got wrist, actions"):
        takes(tmp_path / "one.npz", camera="front")


BAD = {
    "no actions": ({"pixels": film(5)}, "has no actions; expected an .npz or HDF5 file with pixels and actions; got p"),
    "no pictures": ({"pixels": film(5) / 255.0, "actions": moves(4)}, "has no pictures; expected uint8 [N, h, w, 3]"),
    "grey": ({"pixels": film(5)[..., :1], "actions": moves(4)}, "pictures are off; expected uint8 [N, h, w, 3]"),
    "other lengths": ({"pixels": film(5), "actions": moves(3)}, "actions are off; expected [5 or 4, at least 1]"),
    "words": ({"pixels": film(5), "actions": np.array([[b"left"]] * 4)}, "actions are off; expected numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_hdf5_file_that_is_none_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    arrays, said = BAD[name]
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        takes(hdf5(tmp_path / "bad.h5", arrays))
    assert "bad.h5" in str(caught.value)


def test_a_torn_file_is_told(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "torn.h5", {"pixels": film(200), "actions": moves(199)})
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(BadInput, match="torn.h5 is no recording; expected an .npz or HDF5 file"):
        takes(path)


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "one.h5", {"pixels": film(5), "actions": moves(4)})
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadInput, match=r"h5py, which is not installed; pip install 'jepa-mpc\[hdf5\]'"):
        takes(path)


def test_import_and_surprise_take_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row an episode, and what is interrupted goes on: each group is a recording of its own."""
    monkeypatch.chdir(tmp_path)
    robomimic(Path("demo.hdf5"), ("front", "wrist"))
    words = "import recorded/arm demo.hdf5 --camera wrist --steps 4 --size 16 --block 2 --low -1 --high 1"
    main(words.split())
    store = EpisodeStore.open(Path("data/recorded-arm"))
    firsts = store.data["pixels"][:, 0, 0, 0, 0]
    assert torch.equal(firsts.long(), 10 * torch.arange(11) + 1) and store.info.recordings == ()
    store.forget([4, 7])
    main(words.split())
    assert not store.missing() and torch.equal(store.data["pixels"][:, 0, 0, 0, 0].long(), firsts.long())
    with pytest.raises(SystemExit) as stop:
        main(words.replace("wrist", "front").split())
    assert stop.value.code == 2 and "was made with another policy" in capsys.readouterr().err
    toy_checkpoint(tmp_path / "toy")
    for clip, said in (
        ("demo.hdf5", "has several cameras"),
        ("data/recorded-arm --camera wrist", "is not read of a da"),
    ):
        with pytest.raises(SystemExit):
            main(f"surprise {clip} --task TwoRoom --checkpoint toy".split())
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_action_before_among_what_was_observed_is_no_episode(tmp_path: Path) -> None:
    """Each episode was there twice, the second time with its actions a step late."""
    path = robomimic(tmp_path / "demo.hdf5")
    with h5py.File(path, "a") as file:
        for k in range(11):
            file[f"data/demo_{k}/obs/actions"] = moves(5, 99)
    assert_as_filmed(takes(path), [10 * k for k in range(11)], [4] * 11)


def test_a_camera_s_whole_name_tells_it_from_one_that_ends_so(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "one.h5", {"action": moves(4), "wrist": film(5), "depth/wrist": film(5, 9), "c/a": film(5)})
    assert_as_filmed(takes(path, camera="wrist"), [0], [4])
    with h5py.File(path, "a") as file:
        file["b/a"] = film(5)
    with pytest.raises(BadInput, match="several cameras are called so; .*got a$"):
        takes(path, camera="a")


@pytest.mark.parametrize("said", [{"ep_offset": [0, 4]}, {"ep_len": [b"4", b"6"]}], ids=str)
def test_where_episodes_begin_is_not_passed_over(tmp_path: Path, said: dict[str, Any]) -> None:
    """Ten frames of two episodes were one."""
    path = hdf5(tmp_path / "two.h5", {"pixels": film(10), "actions": moves(10)} | said)
    with pytest.raises(BadInput, match="ep_(offset says where episodes begin|len is off)"):
        takes(path)
