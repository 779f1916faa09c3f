"""A headless Chromium with a fake microphone, driven over the DevTools protocol.

Some 100 lines instead of a dependency: one WebSocket, commands with answers, events kept.
"""

import base64
import json
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed

from ssasr.net.websocket_client import connect_websocket
from ssasr.runtime.process import plain_nursery

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_DEADLINE = 30.0
WAIT_DEADLINE = 60.0
MAX_MESSAGE = 64 << 20
"""Bytes: a screenshot comes in one message."""
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--no-first-run", "--no-default-browser-check", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0",
)  # fmt: skip


class PageError(AssertionError):
    """A script on the page failed."""


def executable():
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise AssertionError("no Chromium on PATH: `make browser` installs Debian's")


@define(eq=False)
class Page:
    """One tab. ``console``: what was logged as error or warning, and exceptions nobody caught."""

    _websocket: object
    _next: int = 0
    _answers: dict = field(factory=dict)
    console: list = field(factory=list)
    requests: list = field(factory=list)
    """Addresses that the page asked for."""
    sockets: dict = field(factory=dict)
    """Request id of each WebSocket to its (sent, received) messages, in order of opening."""
    dialogs: list = field(factory=list)
    """What the browser has asked the visitor, by kind (``beforeunload``)."""
    loads: int = 0
    """Documents that have been loaded whole."""
    session: str | None = None

    async def listen(self):
        try:
            while True:
                self._take(json.loads(await self._websocket.get_message()))
        except ConnectionClosed:
            pass

    def _take(self, message):
        if "id" in message:
            event, slot = self._answers.pop(message["id"])
            slot.append(message)
            event.set()
            return
        method, parameters = message["method"], message["params"]
        if method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
            entry = parameters["entry"]
            self.console.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in {"error", "warning"}:
            self.console.append(json.dumps(parameters["args"]))
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(parameters["type"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(parameters["url"])
            self.sockets[parameters["requestId"]] = ([], [])
        elif method in {"Network.webSocketFrameSent", "Network.webSocketFrameReceived"}:
            messages = self.sockets[parameters["requestId"]][method.endswith("Received")]
            frame = parameters["response"]
            data = frame["payloadData"]
            messages.append(base64.b64decode(data) if frame["opcode"] == 2 else json.loads(data))

    async def command(self, method, **parameters):
        self._next += 1
        event, slot = trio.Event(), []
        self._answers[self._next] = (event, slot)
        message = {"id": self._next, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self._websocket.send_message(json.dumps(message))
        with trio.fail_after(WAIT_DEADLINE):
            await event.wait()
        assert "error" not in slot[0], f"{method}: {slot[0]}"
        return slot[0]["result"]

    async def evaluate(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        answer = await self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise PageError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def wait_for(self, script, deadline=WAIT_DEADLINE):
        """Until the expression is true; its value."""
        with trio.move_on_after(deadline):
            while True:
                if value := await self.evaluate(script):
                    return value
                await trio.sleep(0.05)
        text = await self.evaluate("document.body.innerText")
        raise AssertionError(f"never true: {script}\nconsole: {self.console}\npage: {text}")

    @asynccontextmanager
    async def shows(self, script):
        """What the block does makes the expression true, however shortly."""
        self._next += 1
        shown = f"window.shown{self._next}"
        look = f"() => {{ {shown} ||= Boolean({script}) }}"
        watched = "{ attributes: true, childList: true, subtree: true, characterData: true }"
        await self.evaluate(
            f"(() => {{ {shown} = false;"
            f" new MutationObserver({look}).observe(document, {watched}) }})()"
        )
        yield
        await self.wait_for(shown)

    async def open(self, url):
        await self.command("Page.navigate", url=url)
        await self.wait_for("document.readyState === 'complete'")

    async def reload(self, *, asks=False):
        """``asks``: the page wants to be asked first, and is."""
        before = self.loads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.command, "Page.reload")
            with trio.fail_after(WAIT_DEADLINE):
                while asks and not self.dialogs:
                    await trio.sleep(0.02)
                if asks:
                    await self.command("Page.handleJavaScriptDialog", accept=True)
                while self.loads == before:
                    await trio.sleep(0.02)

    async def click(self, selector):
        """As the mouse does: in the middle, where it must be on top."""
        x, y = await self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r});"
            " e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def press(self, key):
        for kind in ("keyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def attach_file(self, selector, path):
        document = await self.command("DOM.getDocument")
        node = await self.command(
            "DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector
        )
        await self.command("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(path)])

    async def drop_file(self, path, kinds=("dragEnter", "dragOver", "drop")):
        """In the middle of the screen."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in kinds:
            await self.command("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    async def look(self, *, width=1100, height=760, scale=1, dark=False, phone=False, still=False):
        """Screen and colour scheme. ``still``: for somebody who wants no motion."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else ""}
        await self.command("Emulation.setEmulatedMedia", features=[scheme, motion])

    async def screenshot(self, path):
        answer = await self.command("Page.captureScreenshot", format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def browser(*, microphone: Path | None = None, flags=()):
    """A fresh profile with one page. ``microphone``: WAV that the microphone hears, once; None: no
    microphone is there."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        fake = ["--use-fake-ui-for-media-stream"]
        if microphone:
            fake += [
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}%noloop",
            ]
        process = subprocess.Popen(  # noqa: ASYNC220  # it returns at once, and this is a test
            [executable(), *FLAGS, *fake, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = await _devtools(Path(profile), process)
            async with (
                connect_websocket(url, unread=4_096, max_message_size=MAX_MESSAGE) as websocket,
                plain_nursery() as nursery,
            ):
                page = Page(websocket)
                nursery.start_soon(page.listen)
                await _attach(page)
                yield page
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            process.wait()


async def _devtools(profile, process):
    """The address that the browser writes into its profile once it listens."""
    written = trio.Path(profile / "DevToolsActivePort")
    with trio.fail_after(START_DEADLINE):
        while True:
            assert process.poll() is None, "the browser did not start"
            if await written.exists():
                lines = (await written.read_text()).split()
                if len(lines) == 2:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await trio.sleep(0.05)


async def _attach(page):
    targets = (await page.command("Target.getTargets"))["targetInfos"]
    target = next(each for each in targets if each["type"] == "page")
    attached = await page.command(
        "Target.attachToTarget", targetId=target["targetId"], flatten=True
    )
    page.session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
        await page.command(f"{domain}.enable")
