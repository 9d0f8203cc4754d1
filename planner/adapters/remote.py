"""The other end of `server`, for a robot that is a Python program."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from ..errors import BadInput


class Remote:
    """A `Policy` for one robot (E is 1) whose planner is behind an address.

    Args:
        address: of the server, such as "http://127.0.0.1:8790".
        timeout: longest to wait for an answer, seconds.
        clock: seconds; the one that the observations' `time` is read from.

    Attributes:
        answer: to the last `act`, as `session.Session.act` gives it.

    Raises:
        BadInput: the address is none, such as one whose port is not 1 to 65535; a port that is left out is 80.
    """

    def __init__(self, address: str, timeout: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        off = BadInput("Remote: address is off", expected="http://HOST:PORT", got=repr(address))
        try:
            parts = urlsplit(address)
            port = 80 if parts.port is None else parts.port
        except ValueError:  # a port that is no number or too large, half an IPv6 address
            raise off from None
        if parts.scheme != "http" or not parts.hostname or port == 0:
            raise off
        self.address, self.clock, self.answer = address, clock, dict[str, Any]()
        self._connection = HTTPConnection(parts.hostname, port, timeout=timeout)

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None, *, moving: bool = False) -> None:
        """A new episode, with the noise of `episode` where `obs` has it; `goal` has `pixels` `[1, size, size, 3]`.

        Where the robot is `moving`, still doing its last action, limits go on from that; else it is taken to be at
        rest.
        """
        told = {"moving": 1} if moving else {}
        told |= {"episode": int(obs["episode"][0])} if "episode" in obs else {}
        self.ask("PUT", f"/goal{'?' if told else ''}{urlencode(told)}", goal["pixels"])

    def act(self, obs: TensorDict) -> np.ndarray:
        """The action for `pixels` `[1, size, size, 3]`, `[1, a]`, float32, physical units.

        Where `obs` has `time`, `[1]`, seconds on `clock`, its age goes along: who serves with `max_age` asks for it.
        """
        age = self.clock() - float(obs["time"].reshape(-1)[0]) if "time" in obs else math.nan
        told = f"?age={age:.6f}" if math.isfinite(age) else ""  # a time that is none is as good as not told
        self.answer = self.ask("POST", f"/act{told}", obs["pixels"])
        return np.array([self.answer["action"]], np.float32)

    def ask(self, method: str, path: str, pixels: Tensor | None = None) -> dict[str, Any]:
        """One request.

        Raises:
            BadInput: nobody answers, or what is asked is refused.
        """
        if pixels is not None:
            _check_picture(pixels)
        try:
            self._connection.request(method, path, None if pixels is None else pixels.numpy().tobytes())
            response = self._connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            self._connection.close()  # it opens anew with the next request
            do = "start `jepa-mpc serve TASK`, and give its address"
            raise BadInput(
                f"no planner answers at {self.address}", got=f"{type(error).__name__}: {error}", do=do
            ) from None
        if response.status != 200:
            raise BadInput(f"the planner at {self.address} refused: {answer.get('error')}")
        return answer


def _check_picture(pixels: Tensor) -> None:
    """Bytes on a wire tell neither how they lay nor what they were."""
    if len(pixels) != 1:
        raise BadInput("Remote: one robot a server", expected="E = 1", got=f"E = {len(pixels)}")
    square = pixels.ndim == 4 and pixels.shape[1] == pixels.shape[2] and pixels.shape[3] == 3
    if not square or pixels.dtype != torch.uint8:
        got = f"{pixels.dtype} {tuple(pixels.shape)}"
        raise BadInput("Remote: the picture is off", expected="torch.uint8 (1, size, size, 3)", got=got)
