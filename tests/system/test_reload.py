"""New certificates and keys for whoever comes next, by themselves or at SIGHUP, and nobody loses a
session."""

import json
import signal
import ssl

import pytest
import trio
import trustme

from ssasr.net.websocket_client import connect_websocket
from tests.harness.clients import read_all
from tests.harness.processes import Program, free_port

pytestmark = pytest.mark.slow


def renew(directory, authority):
    """A new certificate where the server reads it; its serial number."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def session(port, key, authority):
    url = f"wss://127.0.0.1:{port}/v3/ws?sample_rate=16000"
    return connect_websocket(
        url, headers=[(b"Authorization", key.encode())], tls=trusting(authority)
    )


async def first_message(port, key, authority):
    async with session(port, key, authority) as websocket:
        return json.loads(await websocket.get_message())["type"]


async def until_said(program, text, count=1):
    with trio.fail_after(60):
        while program.stderr.count(text) < count:
            await trio.sleep(0.02)


async def test_files_are_read_again_and_a_bad_one_is_not_taken(tmp_path):
    old, new = trustme.CA(), trustme.CA()
    renew(tmp_path, old)
    (tmp_path / "keys").write_text("first\n")
    port = free_port()
    program = Program(
        ["serve", "--engine-kind", "scripted", "--engines", "english", "--host", "127.0.0.1",
         "--port", port, "--api-keys-file", tmp_path / "keys",
         "--tls-certificate", tmp_path / "server.pem"], {},
    ).start()  # fmt: skip
    try:
        await until_said(program, "Ready to serve!")
        async with session(port, "first", old) as open_before:
            assert json.loads(await open_before.get_message())["type"] == "Begin"
            renew(tmp_path, new)
            (tmp_path / "keys").write_text("second\n")
            await until_said(program, "files have changed")
            assert await first_message(port, "second", new) == "Begin"
            assert await first_message(port, "first", new) == "Error"

            (tmp_path / "server.pem").write_text("nonsense")
            (tmp_path / "keys").write_text("")
            program.process.send_signal(signal.SIGHUP)
            await until_said(program, "reading files again")
            await until_said(program, "stays as it was")
            assert "the keys stay as they were" in program.stderr
            assert await first_message(port, "second", new) == "Begin"

            await open_before.send_message(json.dumps({"type": "Terminate"}))
            transcript = await read_all(open_before)
        assert transcript.messages[-1]["type"] == "Termination"
        assert program.process.poll() is None
    finally:
        status = program.stop()
    assert status == 0
