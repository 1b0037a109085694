"""An OpenAI-like server over a real socket, whose every answer is scripted by the test."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


class Reply:
    """What the server sends: JSON, or raw text, with a status and headers, after a delay."""

    def __init__(
        self,
        body: object = None,
        *,
        status: int = 200,
        delay_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.content = body if isinstance(body, str) else json.dumps(body)
        self.status = status
        self.delay_s = delay_s
        self.headers = {"retry-after-ms": "1"} if headers is None else dict(headers)

    def after(self, delay_s: float) -> Reply:
        self.delay_s = delay_s
        return self


def completion(*texts: str, total_tokens: int | None = None, reason: str = "stop") -> Reply:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reason,
        }
        for index, text in enumerate(texts)
    ]
    body: Body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    if total_tokens is not None:
        body["usage"] = {"prompt_tokens": 5, "completion_tokens": total_tokens, "total_tokens": 0}
    return Reply({**body, "choices": choices})


def refusal(status: int, message: str, **more: str) -> Reply:
    return Reply({"error": {"message": message, **more}}, status=status)


class ScriptedServer:
    """An OpenAI-like server whose every answer is scripted by the test.

    script: (request body, number of the request) -> Reply.
    """

    def __init__(self) -> None:
        self.script: Callable[[Body, int], Reply] = lambda body, _: completion(
            *["fine"] * body.get("n", 1)
        )
        self.owner = "someone"
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.lookups = 0
        self.listed: Reply | None = None
        self.together = self.most_together = 0
        self.trickle = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        scripted_server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                scripted_server.lookups += 1
                served = {
                    "id": "m",
                    "object": "model",
                    "created": 0,
                    "owned_by": scripted_server.owner,
                }
                listed = Reply({"object": "list", "data": [served]})
                self.reply(scripted_server.listed or listed)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with scripted_server._lock:
                    number = len(scripted_server.requests)
                    scripted_server.requests.append(body)
                    scripted_server.headers.append(
                        {name.casefold(): value for name, value in self.headers.items()}
                    )
                    scripted_server.together += 1
                    scripted_server.most_together = max(
                        scripted_server.most_together, scripted_server.together
                    )
                try:
                    self.reply(scripted_server.script(body, number))
                finally:
                    with scripted_server._lock:
                        scripted_server.together -= 1

            def reply(self, reply: Reply) -> None:
                scripted_server._closing.wait(reply.delay_s)
                content = reply.content.encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(reply.status)
                    self.send_header("content-type", "application/json")
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    trickle = scripted_server.trickle and self.command == "POST"
                    if not trickle:
                        self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    if trickle:
                        while not scripted_server._closing.wait(0.1):
                            self.wfile.write(b" ")
                            self.wfile.flush()
                        self.close_connection = True
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
