"""A webhook outlives the server that owes it: real processes, killed or stopped."""

import asyncio
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic, sleep
from urllib.parse import urlencode

import pytest
import websockets

from tests.harness.clients import pieces, speech_like
from tests.harness.processes import free_port, server

pytestmark = pytest.mark.slow


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


async def session(port, hook):
    query = urlencode({"sample_rate": 16_000, "webhook_url": f"http://127.0.0.1:{hook}/"})
    headers = {"Authorization": "self-hosted"}
    url = f"ws://127.0.0.1:{port}/v3/ws?{query}"
    async with websockets.connect(url, additional_headers=headers) as connection:
        for piece in pieces(speech_like(3.0)):
            await connection.send(piece)
        await connection.send('{"type": "Terminate"}')
        return [json.loads(text) async for text in connection]


def wait_for(condition):
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline
        sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_nobody_took_is_sent_when_the_server_is_back(tmp_path, number):
    hook = free_port()
    options = ("--engine-kind", "scripted", "--engines", "english",
               "--webhook-hosts", "127.0.0.1", "--webhook-dir", tmp_path)  # fmt: skip
    with server(*options) as (program, port):
        messages = asyncio.run(session(port, hook))
        wait_for(lambda: list(tmp_path.glob("webhook-*")))
        program.stop(number)
    receiver = HTTPServer(("127.0.0.1", hook), Receiver)
    receiver.bodies = []
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    with server(*options):
        wait_for(lambda: receiver.bodies and not list(tmp_path.glob("webhook-*")))
    receiver.shutdown()
    receiver.server_close()
    (body,) = receiver.bodies
    assert json.loads(body) == {
        "session_id": messages[0]["id"],
        "messages": [message for message in messages if message.get("end_of_turn")],
    }
