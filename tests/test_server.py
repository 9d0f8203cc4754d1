"""A planner behind HTTP: the same actions as in one process, and nothing that a request says takes it down."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from test_own import GUIDE, WIRE
from test_readme import COMMANDS, ROOT
from toys import SIZE, dot_episode, info, toy_checkpoint

import envs
from planner import checkpoint
from planner.adapters.remote import Remote
from planner.adapters.server import MOST, listen
from planner.adapters.session import Session
from planner.checkpoint import SHIPPED
from planner.cli import main
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.guard import Guard, Limits
from planner.pictures import decode, png
from planner.surprise import Thresholds

Ask = Any


@pytest.fixture
def film() -> np.ndarray:
    """Pictures of one episode of the dot, `[31, SIZE, SIZE, 3]`."""
    return dot_episode(info(), 0)[0]


@contextmanager
def answering(session: Session) -> Iterator[str]:
    """The address where it answers."""
    with listen(session, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def session(path: Path, limits: Limits | None = None, **options: Any) -> Session:
    return Session(checkpoint.load(toy_checkpoint(path / "toy")), limits or Limits(), **options)


def requests(address: str) -> Ask:
    """Asks over one connection: method, path and body to status and answer."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=10)

    def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if response.getheader("Content-Type") == "application/json" else data

    return ask


def batch(picture: np.ndarray, **more: torch.Tensor) -> TensorDict:
    return TensorDict({"pixels": torch.from_numpy(picture)[None], **more}, batch_size=[1])


def watched(loaded: checkpoint.Checkpoint, unusual: float, impossible: float) -> Thresholds:
    facts = {"renderer": "none", "policy": "play", "seed": 0, "episodes": 99, "length": 100, "steps": 1}
    levels = {"unusual": unusual, "impossible": impossible, "unusual_rate": 0.05, "impossible_rate": 0.01}
    return Thresholds(sha256=loaded.sha256, task=loaded.task, **facts, **levels)


def test_actions_are_those_of_one_process(tmp_path: Path, film: np.ndarray) -> None:
    """To the last bit, episode by episode, the guard's limits with them."""
    limits = Limits(rate=0.3)
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    local = Guard(loaded.planner.build(loaded.model, 0), loaded.model.action, limits)
    with answering(Session(loaded, limits)) as address:
        remote = Remote(address)
        for number, goal in ((3, film[20]), (0, film[9])):
            for policy in (local, remote):
                policy.reset(batch(film[0], episode=torch.tensor([number])), batch(goal))
            for picture in film[:12]:
                assert np.array_equal(remote.act(batch(picture)), local.act(batch(picture)))
        assert remote.ask("GET", "/status")["interventions"] == local.report() != {}


@pytest.mark.skipif(not (SHIPPED / "tworoom" / "config.json").exists(), reason="needs the shipped TwoRoom checkpoint")
def test_a_robot_arrives_over_the_wire_as_it_does_without() -> None:
    loaded = checkpoint.load(checkpoint.find("TwoRoom", None))
    env = envs.make("TwoRoom")
    pairs = held_out_pairs(env, 3, 25, 1000).pairs
    alone = play_pairs([env], loaded.planner.build(loaded.model, 0), pairs, 50)
    with answering(Session(loaded, Limits())) as address:
        wired = play_pairs([env], Remote(address), pairs, 50)
    assert [episode.goal_distance for episode in wired] == [episode.goal_distance for episode in alone]
    assert any(episode.success for episode in wired)


def test_image_files_are_taken_as_bare_bytes_are(tmp_path: Path, film: np.ndarray) -> None:
    actions = []
    for written in (png, np.ndarray.tobytes):
        asked = session(tmp_path)
        assert asked.begin(written(film[20])) == {"episode": 0}
        actions.append(asked.act(written(film[0]))["action"])
    assert actions[0] == actions[1]


def test_bytes_are_told_from_files_of_their_length(film: np.ndarray) -> None:
    """A PNG that was as long as the bare rows was read as rows; and rows may begin as a file does."""
    file = png(film[0])
    long = file + bytes(SIZE * SIZE * 3 - len(file))  # what follows a PNG's end is not read
    assert np.array_equal(decode(long, SIZE), film[0])
    pink = film[0].copy()
    pink[0, 0] = 255, 216, 255
    assert np.array_equal(decode(pink.tobytes(), SIZE), pink)


@pytest.mark.parametrize(
    "pixels", [torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.zeros(1, SIZE, SIZE, 3), torch.zeros(1, 3)]
)
def test_a_picture_that_lies_otherwise_is_not_sent(pixels: torch.Tensor) -> None:
    """On the wire it is as many bytes, and was taken for a picture."""
    with pytest.raises(BadInput, match=r"the picture is off; expected torch.uint8 \(1, size, size, 3\)"):
        Remote("http://127.0.0.1:1").act(TensorDict({"pixels": pixels}, batch_size=[1]))


def test_what_is_wrong_is_told_and_the_episode_goes_on(tmp_path: Path, film: np.ndarray) -> None:
    """Over one connection: a request that is refused leaves nothing behind that the next one would be read from."""
    picture, small = film[0].tobytes(), png(film[0][:16, :16])
    with answering(session(tmp_path)) as address:
        ask = requests(address)
        told = [
            (ask("POST", "/act", picture), 400, "no goal yet"),
            (ask("PUT", "/goal", b"no picture"), 400, f"cannot be read; expected an image file of {SIZE} x {SIZE}"),
            (ask("PUT", "/goal", small), 400, "another size; expected .* got 16 x 16 pixels"),
            (ask("PUT", "/goal", png(film[9])[:60]), 400, "cannot be read"),
            (ask("PUT", "/goal?episode=-1", picture), 400, "episode is off; expected 0 to .*; got -1"),
            (ask("PUT", f"/goal?episode={2**63}", picture), 400, f"episode is off; expected 0 to .*; got {2**63}"),
            (ask("PUT", "/goal?seed=1", picture), 400, "unknown option; expected episode or moving; got seed"),
            (ask("PUT", "/goal?episode=x", picture), 400, "episode is off; expected a number; got 'x'"),
            (ask("POST", "/act?age=nan", picture), 400, "no goal yet"),
            (ask("POST", "/goal", picture), 404, "nothing at POST /goal"),
            (ask("GET", "/look.png"), 404, "no picture yet"),
        ]
        for (status, answer), expected, words in told:
            assert status == expected and re.search(words, answer["error"]), answer
        assert ask("PUT", "/goal?episode=7", picture) == (200, {"episode": 7})
        first = ask("POST", "/act", picture)[1]
        assert ask("POST", "/act", b"")[0] == ask("POST", "/act?age=soon", picture)[0] == 400
        assert "age is off; expected seconds" in ask("POST", "/act?age=nan", picture)[1]["error"]
        assert [first["step"], ask("POST", "/act", picture)[1]["step"]] == [0, 4]  # the refused ones have gone by
        assert ask("GET", "/status")[1]["interventions"]["refused"] == 3


def eager(asked: Session) -> Session:
    """It wants all that there is, in every step."""
    asked.policy.act = lambda obs: np.full((1, 2), 1.2)  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/act", b"no picture", {}, 400),
        ("/act?age=soon", None, {}, 400),
        ("/act?age=nan", None, {}, 400),
        ("/act?aeg=0", None, {}, 400),
        ("/act", b"", {"Content_Length": str(MOST + 1)}, 413),
    ],
)
def test_a_robot_that_was_refused_has_braked(
    path: str, body: bytes | None, headers: dict[str, str], status: int, tmp_path: Path, film: np.ndarray
) -> None:
    """The guard went on from its last action: after (0.9, 0.9), a refusal and a robot at rest it sent (1.2, 1.2)."""
    picture = film[0].tobytes()
    with answering(eager(session(tmp_path, Limits(rate=0.3)))) as address:
        ask = requests(address)
        assert ask("POST", path, picture if body is None else body, **headers)[0] == status
        assert "refused" not in requests(address)("GET", "/status")[1]["interventions"]  # nobody moves without a goal
        ask = requests(address)
        ask("PUT", "/goal", picture)
        sent = [ask("POST", "/act", picture)[1]["action"] for _ in range(3)]
        assert ask("POST", path, picture if body is None else body, **headers)[0] == status
        ask = requests(address)
        after = ask("POST", "/act", picture)[1]
        np.testing.assert_allclose([*sent, after["action"]], np.array([[0.3], [0.6], [0.9], [0.3]]) * [1, 1], atol=1e-6)
        told = ask("GET", "/status")[1]
        assert after["step"] == 4 and told["interventions"]["refused"] == 1 and len(told["surprise"]) == 5


def test_a_robot_that_is_on_its_way_may_say_so_with_a_new_goal(tmp_path: Path, film: np.ndarray) -> None:
    """It was always taken to be at rest, so that limits began there: three times the rate from one action to the
    next."""
    with answering(eager(session(tmp_path, Limits(rate=0.3)))) as address:
        remote = Remote(address)
        for moving, then in ((True, 1.2), (False, 0.3)):
            remote.reset(batch(film[0]), batch(film[20]))
            sent = [float(remote.act(batch(film[0]))[0, 0]) for _ in range(3)]
            np.testing.assert_allclose(sent, [0.3, 0.6, 0.9], atol=1e-6)
            remote.reset(batch(film[0], episode=torch.tensor([3])), batch(film[9]), moving=moving)
            assert remote.act(batch(film[0]))[0, 0] == pytest.approx(then, abs=1e-6)


def test_a_planner_that_was_refused_a_picture_knows_of_the_step(tmp_path: Path, film: np.ndarray) -> None:
    """Its clock stood still, and what was done in that step was missing in what it rehearsed from."""
    asked = session(tmp_path)
    asked.begin(film[20].tobytes())
    actions = [asked.act(film[0].tobytes())["action"] for _ in range(2)]
    with pytest.raises(BadInput, match="cannot be read"):
        asked.act(b"")
    actions += [[0.0, 0.0], asked.act(film[0].tobytes())["action"]]
    np.testing.assert_allclose(asked.policy._done[0, -4:], actions, atol=1e-6)
    assert asked.policy._clock is not None and asked.policy._clock.tolist() == [4]


def test_an_answer_that_got_lost_was_not_done(tmp_path: Path, film: np.ndarray) -> None:
    """It was taken for done before it was written."""
    asked, picture = eager(session(tmp_path, Limits(rate=0.3))), film[0].tobytes()
    asked.begin(picture)
    asked.act(picture), asked.act(picture)

    def cut(answer: dict[str, Any]) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asked.act(picture, hand=cut)
    last = asked.status()
    assert last["last"]["step"] == 1 and last["interventions"]["lost"] == 1
    after = asked.act(picture)
    np.testing.assert_allclose(after["action"], [0.3, 0.3], atol=1e-6)
    assert after["step"] == 3


def waited(until: Any) -> bool:
    """Whether it came true within 10 s."""
    late = time.monotonic() + 10
    while not until() and time.monotonic() < late:
        time.sleep(0.01)
    return bool(until())


@pytest.mark.parametrize("rude", [False, True])
def test_a_robot_that_hangs_up_is_no_news(
    rude: bool, tmp_path: Path, film: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that waited too long for its action has braked; each time a page of traceback was printed."""
    asked, picture = session(tmp_path), film[0].tobytes()
    thinking, left = threading.Event(), threading.Event()

    def slow(obs: TensorDict) -> np.ndarray:
        thinking.set()
        left.wait(10)
        return np.full((1, 2), 0.5)

    asked.begin(picture)
    asked.policy.act = slow  # type: ignore[method-assign]
    with answering(asked) as address:
        port = int(address.rsplit(":")[-1])
        robot = socket.create_connection(("127.0.0.1", port))
        robot.sendall(b"POST /act HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture)
        assert thinking.wait(10)
        if rude:  # the connection is reset, not ended
            robot.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        robot.close()
        left.set()
        assert waited(lambda: asked.status()["interventions"].get("lost") == 1)
        with socket.create_connection(("127.0.0.1", port)) as half:  # and one that leaves with half a picture sent
            half.sendall(b"POST /act HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture[:100])
            half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert waited(lambda: asked.status()["interventions"].get("refused") == 1)
        assert requests(address)("POST", "/act", picture)[1]["step"] == 2
    assert capsys.readouterr() == ("", "")


def heard(address: str, said: bytes) -> tuple[bytes, bytes]:
    """Head and body of all that comes back before the server hangs up."""
    with socket.create_connection(("127.0.0.1", int(address.rsplit(":")[-1])), timeout=10) as robot:
        robot.sendall(said)
        with robot.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    return head, body


def test_what_no_method_answers_is_told_as_everything_else(tmp_path: Path) -> None:
    """`DELETE /goal` gave a page of HTML."""
    with answering(session(tmp_path)) as address:
        head, body = heard(address, b"DELETE /goal HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        assert head.startswith(b"HTTP/1.1 501 ") and b"Content-Type: application/json" in head
        assert json.loads(body) == {"error": "Unsupported method ('DELETE')"}
        head, body = heard(address, b"HEAD / HTTP/1.1\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 501 ") and b"Content-Type: application/json" in head and not body
        head, body = heard(address, b"GET /" + 70_000 * b"a" + b" HTTP/1.1\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 414 ") and "error" in json.loads(body)


def test_what_python_cannot_read_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address with half of another's in it, and a length of more digits than Python reads, were left unanswered."""
    with answering(session(tmp_path)) as address:
        for said, status, words in (
            (b"POST http://[/act HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"400", "an address that can be read"),
            (b"POST /act HTTP/1.1\r\nContent-Length: " + 5000 * b"1" + b"\r\n\r\n", b"413", f"at most {MOST} bytes"),
        ):
            head, body = heard(address, said)
            assert head.startswith(b"HTTP/1.1 " + status) and words in json.loads(body)["error"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("headers", [{"Content_Length": str(MOST + 1)}, {"Content_Length": "-1"}])
def test_a_body_without_end_is_not_read(headers: dict[str, str], tmp_path: Path) -> None:
    with answering(session(tmp_path)) as address:
        status, answer = requests(address)("PUT", "/goal", b"", **headers)
        assert status == 413 and str(MOST) in answer["error"]
        assert requests(address)("GET", "/status")[0] == 200


def test_an_old_picture_is_not_acted_on(tmp_path: Path, film: np.ndarray) -> None:
    """Nor one from the future; without a limit nobody asks."""
    careful, careless = session(tmp_path, Limits(max_age=0.2, fallback=("brake",))), session(tmp_path)
    for one in (careful, careless):
        one.begin(film[20].tobytes())
    for age, stale in ((0.0, False), (0.19, False), (0.5, True), (-3.0, True)):
        answer = careful.act(film[0].tobytes(), age)
        assert (answer["changed"].get("stale") == 1) == stale == (answer["action"] == [0, 0]), age
        assert not careless.act(film[0].tobytes(), age)["changed"]


def test_a_picture_of_unknown_age_is_refused_where_age_counts(tmp_path: Path, film: np.ndarray) -> None:
    """It was taken for one of now: `--max-age` limited nothing unless the robot volunteered an age."""
    picture = film[0].tobytes()
    with answering(eager(session(tmp_path, Limits(max_age=0.2, fallback=("brake",))))) as address:
        ask = requests(address)
        ask("PUT", "/goal", picture)
        status, answer = ask("POST", "/act", picture)
        assert status == 400
        said = "serve: age is missing; expected seconds since the picture was taken; send it as /act?age=0.02"
        assert answer["error"] == said
        for path in ("/act?age=", "/act?age"):
            status, answer = ask("POST", path, picture)
            assert status == 400 and answer["error"] == "serve: age is off; expected a number; got ''"
        fresh, stale = (ask("POST", f"/act?age={age}", picture)[1] for age in (0.1, 0.3))
        assert (fresh["step"], fresh["changed"]) == (3, {}) and stale["changed"]["stale"] == 1
        assert ask("GET", "/status")[1]["interventions"]["refused"] == 3


def test_a_robots_program_sends_the_age_on_its_own_clock(tmp_path: Path, film: np.ndarray) -> None:
    seen = [{"time": torch.tensor([at], dtype=torch.float64)} for at in (99.9, 99.5, 100.00001, 103.0)]
    with answering(session(tmp_path, Limits(max_age=0.2, fallback=("brake",)))) as address:
        robot = Remote(address, clock=lambda: 100.0)
        robot.reset(batch(film[0]), batch(film[20]))
        with pytest.raises(BadInput, match="refused: serve: age is missing"):
            robot.act(batch(film[0]))
        stale = []
        for time_taken in seen:
            robot.act(batch(film[0], **time_taken))
            stale.append("stale" in robot.answer["changed"])
        assert stale == [False, True, False, True]


def test_the_impossible_stops_the_robot_until_the_next_goal(tmp_path: Path, film: np.ndarray) -> None:
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    asked = Session(loaded, Limits(on_impossible="stop"), thresholds=watched(loaded, 1e-9, 1e-9))
    asked.begin(film[20].tobytes())
    answers = [asked.act(picture.tobytes()) for picture in film[:20]]
    states = [answer["state"] for answer in answers]
    assert states[0] is None and answers[0]["surprise"] is None  # nothing was foreseen yet
    first = states.index("impossible")
    assert answers[first]["surprise"] > 0
    assert all(answer["action"] == [0, 0] and answer["changed"] == {"stopped": 1} for answer in answers[first:])
    status = asked.status()
    assert status["alarms"]["impossible"] == states.count("impossible") and status["interventions"]["stopped"] > 1
    assert len(status["surprise"]) == 20
    asked.begin(film[20].tobytes())
    assert asked.act(film[0].tobytes())["action"] != [0, 0]


def test_who_plans_anew_is_told_why(tmp_path: Path, film: np.ndarray) -> None:
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    asked = Session(loaded, Limits(on_impossible="replan"), thresholds=watched(loaded, 1e-9, 1e-9))
    asked.begin(film[20].tobytes())
    answers = [asked.act(picture.tobytes()) for picture in film[:20]]
    (known,) = [step for step, answer in enumerate(answers) if answer["state"]]  # the next would be 11 steps later
    assert answers[known]["state"] == "impossible" and answers[known]["surprise"] > 0


def test_what_could_not_be_judged_is_not_called_what_the_last_step_was(tmp_path: Path, film: np.ndarray) -> None:
    """Where the encoder failed the answer said once more what the monitor had said before, and at the first look the
    robot got no answer at all.
    """
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    asked, encode = Session(loaded, Limits(), thresholds=watched(loaded, 1e-9, 1e-9)), loaded.model.encode
    asked.begin(film[20].tobytes())
    loaded.model.encode = broken  # type: ignore[method-assign]
    first = asked.act(film[0].tobytes())
    assert first["action"] == [0, 0] and first["state"] is None and first["changed"]["error"] == 2
    loaded.model.encode = encode  # type: ignore[method-assign]
    states = [asked.act(picture.tobytes())["state"] for picture in film[1:20]]
    assert states[-1] == "impossible"
    loaded.model.encode = broken  # type: ignore[method-assign]
    answer = asked.act(film[20].tobytes())
    assert answer["state"] is None and answer["surprise"] is None
    assert asked.status()["alarms"]["impossible"] == states.count("impossible")


def test_the_page_and_its_pictures(tmp_path: Path, film: np.ndarray) -> None:
    with answering(session(tmp_path)) as address:
        ask = requests(address)
        page = ask("GET", "/")[1].decode()
        assert page.startswith("<!doctype html>") and "http" not in page.split("<body>")[1]  # nothing from elsewhere
        ask("PUT", "/goal", film[20].tobytes())
        ask("POST", "/act", film[4].tobytes())
        asked = re.findall(r"[\"`](/[a-z.]+)", page)
        assert {ask("GET", path)[0] for path in asked} == {200} and len(asked) == 3
        assert ask("GET", "/look.png")[1] == png(film[4]) and ask("GET", "/goal.png?0")[1] == png(film[20])
        assert set(re.findall(r"status\.(\w+)", page)) <= set(ask("GET", "/status")[1])
        assert set(re.findall(r"last\.(\w+)", page)) <= set(ask("GET", "/status")[1]["last"])


def test_every_goal_has_an_address_of_its_own(tmp_path: Path, film: np.ndarray) -> None:
    """After a restart, or a goal with the number of one before, the page went on showing the old one's picture."""
    begun = []
    for asked in (session(tmp_path), session(tmp_path)):
        assert asked.status()["begun"] is None
        for picture in film[19:21]:
            asked.begin(picture.tobytes(), episode=3)
            begun.append(asked.status()["begun"])
        asked.act(film[0].tobytes())
        with pytest.raises(BadInput):
            asked.begin(b"")
        assert asked.status()["begun"] == begun[-1]
    assert len(set(begun)) == 4
    with answering(asked) as address:
        assert requests(address)("GET", "/")[1].decode().count(".png?${status.begun}") == 2


def test_the_energy_told_is_of_this_episode(tmp_path: Path, film: np.ndarray) -> None:
    """Where the first plan of an episode failed, that of the last one before it was told."""
    asked, picture = session(tmp_path), film[0].tobytes()
    asked.begin(film[20].tobytes())
    assert asked.act(picture)["energy"] is not None
    asked.begin(film[20].tobytes())
    asked.policy.act = broken  # type: ignore[method-assign]
    assert asked.act(picture)["energy"] is None
    del asked.policy.act
    assert asked.act(picture)["energy"] is not None


def test_what_the_planner_raises_is_survived_and_told(tmp_path: Path, film: np.ndarray) -> None:
    asked = session(tmp_path)
    asked.begin(film[20].tobytes())
    asked.policy.act = broken  # type: ignore[method-assign]
    answer = asked.act(film[0].tobytes())
    assert answer["action"] == [0, 0] and answer["changed"]["error"] == 1 and answer["energy"] is None
    assert asked.status()["error"] == "out of order"


def broken(obs: TensorDict) -> np.ndarray:
    raise RuntimeError("out of order")


def test_steps_are_done_one_after_the_other(tmp_path: Path, film: np.ndarray) -> None:
    """Two that ask at once would have mixed their histories."""
    asked, steps = session(tmp_path), list[int]()
    asked.begin(film[20].tobytes())

    def robot() -> None:
        steps.extend(asked.act(picture.tobytes())["step"] for picture in film[:15])

    threads = [threading.Thread(target=robot) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(steps) == list(range(45))


def test_who_asks_nobody_is_told(film: np.ndarray) -> None:
    """A port that is none was a bare `ValueError`, and port 0 became 80, unsaid."""
    with pytest.raises(BadInput, match=r"Remote: address is off; expected http://HOST:PORT; got 'localhost:8790'"):
        Remote("localhost:8790")
    for port in ("99999", "0", "abc", "-1"):
        with pytest.raises(BadInput, match=f"Remote: address is off; expected http://HOST:PORT; got 'http://h:{port}'"):
            Remote(f"http://h:{port}")
    with pytest.raises(BadInput, match=r"no planner answers at http://127.0.0.1:9; .*start `jepa-mpc serve TASK`"):
        Remote("http://127.0.0.1:9").act(batch(film[0]))
    with pytest.raises(BadInput, match="one robot a server; expected E = 1; got E = 2"):
        Remote("http://127.0.0.1:9").act(TensorDict({"pixels": torch.zeros(2, 8, 8, 3)}, [2]))


def test_a_refusal_reaches_the_robots_program(tmp_path: Path, film: np.ndarray) -> None:
    with answering(session(tmp_path)) as address:
        robot = Remote(address)
        with pytest.raises(BadInput, match="refused: serve: no goal yet"):
            robot.act(batch(film[0]))
        robot.reset(batch(film[0]), batch(film[20]))  # over the same connection
        assert robot.act(batch(film[0])).shape == (1, 2) and robot.answer["step"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--on-impossible", "stop"], "has no monitor of surprise"),
        (["--on-impossible", "panic"], "on_impossible is off; expected warn or replan or stop"),
        (["--rate", "0"], "rate is off"),
        (["--port", "-1"], "cannot listen at 127.0.0.1:-1"),
        (["--host", "256.0.0.1"], "cannot listen at 256.0.0.1"),
        (["--threads", "0"], "threads is off"),
        (["--deadline-ms", "0"], "deadline_ms is off; expected a number above 0"),
    ],
)
def test_mistakes_of_the_command(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["serve", "TwoRoom", "--checkpoint", str(toy_checkpoint(tmp_path / "toy")), "--threads", "1", "--port", "0"]
    with pytest.raises(SystemExit, match="2"):
        main([*given, *words])
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with listen(session(tmp_path), "127.0.0.1", 0) as server, pytest.raises(BadInput, match="choose another --port"):
        listen(session(tmp_path), "127.0.0.1", server.server_address[1])


SERVING = [words for words in COMMANDS if words[1] == "serve"] + [
    shlex.split(line, comments=True)
    for kind, text in GUIDE
    if kind == "bash"
    for line in text.splitlines()
    if line.startswith("jepa-mpc serve")
]


@pytest.mark.parametrize("words", SERVING, ids=shlex.join)
@pytest.mark.skipif(not (SHIPPED / "tworoom" / "config.json").exists(), reason="needs the shipped TwoRoom checkpoint")
def test_the_commands_that_are_shown(words: list[str]) -> None:
    """They do not end by themselves: until Ctrl-C, which tells what happened. The guide's program for a robot asks."""
    run = [sys.executable, "-c", "from planner.command import main; main()"]
    given = [*run, *words[1:], "--port", "0", "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Where tests run in a shell's background Ctrl-C is ignored, by them and by whatever they start.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(given, cwd=ROOT, preexec_fn=heeding, **pipes) as serving:
        assert serving.stdout is not None
        try:
            address = next(found[0] for line in serving.stdout if (found := re.search(r"http://[\d.:]+", line)))
            program = WIRE.replace("http://127.0.0.1:8790", address)
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert requests(address)("GET", "/status")[1]["last"]["step"] == 9
            serving.send_signal(signal.SIGINT)
            assert "guard {" in serving.communicate(timeout=30)[0]
        finally:
            serving.kill()  # one that did not end would be waited for without end
    assert serving.returncode == 130
    assert len(SERVING) == 2
