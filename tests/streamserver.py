"""A small server of OpenAI's completions, streamed: a process of its own, which tests stop, kill and let misbehave.

    python streamserver.py [normal | uncounted | nothing | whole | dies | breaks | one_by_one] SECONDS_A_TOKEN

It prints its port. `uncounted`: without token ids; `nothing`: a stream without a token; `whole`: one JSON object;
`dies`: the process ends in the middle of its eighth answer; `breaks`: every third stream ends without its end;
`one_by_one`: one answer at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

MODE = sys.argv[1] if __name__ == "__main__" else ""
PAUSE_S = float(sys.argv[2]) if __name__ == "__main__" else 0.0
ANSWERS = count(1)
ALONE = threading.Lock()
running: set[int] = set()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        lines = (
            f'vllm:num_requests_running{{model_name="m"}} {len(running)}', 'vllm:num_requests_waiting{model_name="m"} 0',
            f'vllm:kv_cache_usage_perc{{model_name="m"}} {min(len(running) / 10, 1)}',
            'vllm:num_preemptions_total{model_name="m"} 3',
        )  # fmt: skip
        self._send("text/plain", "\n".join(lines).encode() + b"\n")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = next(ANSWERS)
        if MODE == "whole":
            self._send("application/json", json.dumps({"choices": [{"text": "a whole answer"}]}).encode())
            return
        if MODE == "one_by_one":
            with ALONE:
                self._answer(body, number)
        else:
            self._answer(body, number)

    def _answer(self, body: dict[str, Any], number: int) -> None:
        running.add(number)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self._stream(body, number)
        finally:
            running.discard(number)

    def _stream(self, body: dict[str, Any], number: int) -> None:
        chat = "messages" in body
        for token in range(body["max_tokens"] if MODE != "nothing" else 0):
            time.sleep(PAUSE_S)
            if token == 2 and MODE == "dies" and number == 8:
                os._exit(1)
            if token == 2 and MODE == "breaks" and number % 3 == 0:
                return
            choice: dict[str, Any] = {"delta": {"content": "a "}} if chat else {"text": "a "}
            if MODE != "uncounted":
                choice["token_ids"] = [5]
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256  # what comes while the process is stopped is not refused
    daemon_threads = True


@contextmanager
def stream_server(mode: str = "normal", token_s: float = 0.01) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and its process, which ends with the block."""
    command = [sys.executable, __file__, mode, str(token_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1", process
        finally:
            process.kill()


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
