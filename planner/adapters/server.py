"""A planner for a robot that is no part of this program: pictures come in over HTTP, actions go out.

    PUT  /goal      picture of a goal: begins an episode (?episode=3: with the noise of that one), for which the robot
                    is taken to be at rest (?moving=1: it still does its last action, and limits go on from that)
    POST /act       picture of now, once a control step: the action (?age=0.04: seconds since it was taken; asked for
                    where `max_age` is set)
    GET  /status    what acts, within which limits, alarms and interventions so far
    GET  /          a page that shows all of this, live; /look.png and /goal.png are its pictures

Pictures are image files or bare RGB rows (`pictures.decode`), answers are JSON (`session.Session`). What is wrong with
a request is told with a status of 400 or above and `{"error": ...}`; a robot that gets no action has to brake by
itself, and is taken to have done so: in a step whose /act was refused, or that had hung up before its answer was there.
One robot at a time: requests are done one after the other. There is no password: whoever reaches the port moves the
robot.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import BadInput
from ..pictures import png
from .session import Session

MOST = 16 << 20
"""Bytes that a request may have."""


def listen(session: Session, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound; `serve_forever` answers, `shutdown` from another thread ends that.

    Args:
        session: what is asked.
        host: address to listen at; "127.0.0.1" is this machine alone, "0.0.0.0" any that gets there.
        port: 0 for any that is free, `server_address` then tells.

    Raises:
        BadInput: if the address cannot be had.
    """
    try:
        server = ThreadingHTTPServer((host, port), partial(_Handler, session))
    except (OSError, OverflowError) as error:
        do = "choose another --port, or 0 for any that is free"
        raise BadInput(f"serve: cannot listen at {host}:{port}", got=str(error), do=do) from None
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all steps
    disable_nagle_algorithm = True  # head and body are written one after the other: 40 ms for nothing

    def __init__(self, session: Session, *given: Any) -> None:
        self.session = session
        super().__init__(*given)

    def handle(self) -> None:
        """Answers until the other end hangs up; that it does so is no news, and the guard counts what it lost by it."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._route({"/": self._page, "/status": self._status, "/look.png": self._look, "/goal.png": self._goal})

    def do_PUT(self) -> None:
        self._route({"/goal": self._begin})

    def do_POST(self) -> None:
        self._route({"/act": self._act})

    def log_message(self, format: str, *given: Any) -> None:
        """Nothing: there are many steps a second."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses, such as a method that nobody knows, told as everything else is."""
        self.close_connection = True  # a body may follow, which nobody reads
        self._tell({"error": message or HTTPStatus(code).phrase}, code)

    def _route(self, known: dict[str, Callable[[bytes, dict[str, str]], None]]) -> None:
        body = self._body()
        try:
            address = urlsplit(self.path)
        except ValueError:  # half an IPv6 address before the path
            self.send_error(HTTPStatus.BAD_REQUEST, "an address that can be read was expected")
            return
        answer = known.get(address.path)
        if body is None:
            if answer == self._act:
                self.session.missed()
            self._tell({"error": f"a body of at most {MOST} bytes, with its Content-Length, was expected"}, 413)
            return
        if answer is None:
            self._tell({"error": f"nothing at {self.command} {address.path}; see planner/adapters/server.py"}, 404)
            return
        try:
            answer(body, dict(parse_qsl(address.query, keep_blank_values=True)))
        except BadInput as error:
            self._tell({"error": str(error)}, 400)

    def _body(self) -> bytes | None:
        """The request's, or None where that is to be refused."""
        length = self.headers.get("Content-Length", "0")
        # Python reads no number of thousands of digits.
        sound = length.isdecimal() and len(length) <= 20 and int(length) <= MOST
        if self.headers.get("Transfer-Encoding") or not sound:
            self.close_connection = True  # what is left of it would be taken for the next request
            return None
        try:
            return self.rfile.read(int(length))
        except ConnectionError:  # a step has gone by all the same; an empty picture or goal is refused
            return b""

    def _begin(self, body: bytes, options: dict[str, str]) -> None:
        numbers = _numbers(options, {"episode": int, "moving": int})
        self._tell(self.session.begin(body, numbers.get("episode"), bool(numbers.get("moving"))))

    def _act(self, body: bytes, options: dict[str, str]) -> None:
        try:
            numbers = _numbers(options, {"age": float})
        except BadInput:
            self.session.missed()
            raise
        self.session.act(body, hand=self._hand, **numbers)

    def _hand(self, answer: dict[str, Any]) -> None:
        """Tells it to a robot that is still there.

        Raises:
            ConnectionError: it is not.
        """
        # To one that has hung up a first write goes through. Who only closed its own side gets no answer either.
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.connection, selectors.EVENT_READ)
            heard = waiting.select(0)
        if heard and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionAbortedError("the robot hung up")
        self._tell(answer)

    def _status(self, body: bytes, options: dict[str, str]) -> None:
        self._tell(self.session.status())

    def _page(self, body: bytes, options: dict[str, str]) -> None:
        self._send(files(__package__).joinpath("page.html").read_bytes(), "text/html; charset=utf-8")

    def _look(self, body: bytes, options: dict[str, str]) -> None:
        self._picture(self.session.seen)

    def _goal(self, body: bytes, options: dict[str, str]) -> None:
        self._picture(self.session.goal)

    def _picture(self, picture: Any) -> None:
        if picture is None:
            self._tell({"error": "no picture yet"}, 404)
            return
        self._send(png(picture), "image/png")

    def _tell(self, answer: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(answer, allow_nan=False).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _numbers(options: dict[str, str], known: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """What stands behind the `?` of an address, as numbers.

    Raises:
        BadInput: for one that is not known or no number.
    """
    found = {}
    for name, value in options.items():
        if name not in known:
            raise BadInput("serve: unknown option", expected=" or ".join(known), got=name)
        try:
            found[name] = known[name](value)
        except ValueError:
            raise BadInput(f"serve: {name} is off", expected="a number", got=repr(value)) from None
    return found
