"""What leaks of personal data that was said aloud: generated turns (``redaction_corpus``), spoken
by synthesisers, through a whole server.

    apt-get install flite espeak-ng
    python -m benchmarks.redaction_speech --templates once --turns 70 --write WORDS --json FILE
    python -m benchmarks.redaction_speech --read WORDS --json FILE

``ssasr serve`` runs with each engine alone; each voice says its turns with pauses of 1.2 s between
them. Every session is held twice, as it is said and with ``redact_pii=true``: the words of the
first, aligned with what was spoken, say which words of the second belong to which entity, with the
recogniser's own errors in them. An entity is found if all its words are hidden but those that say
nothing ("the", "for"), which the alignment may well have given it; ``whole`` is the share of which
these were hidden, too. What is shown is listed. ``recall`` counts a session that asks for every
policy, ``alone`` one that asks for the entity's own.

``outputs``: the distinctive words of what was hidden (seven letters or digits, or more) that are to
be found in anything else that the server wrote, its log at its most detailed, metrics, usage
records, webhooks, and the file that ``ssasr transcribe --redact all`` saved.
"""

import argparse
import json
import re
import subprocess
import tempfile
import threading
import wave
from collections import Counter
from contextlib import contextmanager
from difflib import SequenceMatcher
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import soundfile
import soxr
import trio
from trio_websocket import ConnectionClosed

from benchmarks.conditions import conditions, publish
from benchmarks.redaction import MODEL, stretches
from benchmarks.redaction_corpus import CHOICES, ONCE, WORDS, Corpus, pair
from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.model import load
from ssasr.gateway.redaction.policies import LANGUAGES, policies_of
from ssasr.gateway.redaction.spoken import read
from ssasr.models import catalogue
from ssasr.net.websocket_client import connect_websocket
from tests.harness.processes import Program, free_port

RATE = 16_000
SAYS_NOTHING = frozenset(
    ["a", "all", "an", "and", "at", "for", "i", "i'm", "in", "is", "it", "it's", "of", "on", "or",
     "so", "that", "that's", "the", "to"]
)  # fmt: skip
PAUSE = 1.2
"""Seconds of silence behind a turn."""
VOICES = ("slt", "rms", "awb", "en-us", "en-gb-x-rp+f3", "en-us+m3")
"""The first three are flite's, the others espeak-ng's."""
FLITE = frozenset({"slt", "rms", "awb"})
SPEECH_MODELS = {
    "english": ("universal-streaming-english", "u3-rt-pro"),
    "multilingual": ("universal-streaming-multilingual", "u3-rt-pro"),
}
"""Of each engine, one model of family U and one of family P."""


# -- what is spoken --------------------------------------------------------------------------------


def aloud(word):
    """A word of the corpus as what a synthesiser is to say, one or more words."""
    core = word.strip(".,?!")
    tail = word[len(core) :] if word.startswith(core) else ""
    if re.fullmatch(r"\d\d?/\d\d(/\d{4})?", core):
        month, second, *year = core.split("/")
        said = pair(int(month)) + pair(int(second))
        said += [f for part in year for f in pair(int(part[:2])) + pair(int(part[2:]))]
    elif "@" in core or core.startswith("www."):
        said = re.findall(r"[a-z]+|\d|[@._-]", core)
        symbols = {"@": "at", ".": "dot", "_": "underscore", "-": "dash"}
        said = [symbols.get(s) or (WORDS[int(s)] if s.isdigit() else s) for s in said]
    elif re.search(r"\d", core) and re.search(r"[a-zA-Z]", core):
        said = re.findall(r"[A-Z]|[a-z]+|\d", core)
        said = [WORDS[int(s)] if s.isdigit() else s for s in said]
    elif core.isdigit() and not (len(core) == 4 and core[:2] in {"19", "20"}) and len(core) > 2:
        said = [WORDS[int(digit)] for digit in core]
    else:
        return [word]
    return [*said[:-1], said[-1] + tail]


def spoken_turn(words, policies):
    """The same as it is said, with the policy of every word."""
    said = [aloud(word) for word in words]
    spread = [[policy] * len(some) for policy, some in zip(policies, said, strict=True)]
    return list(chain.from_iterable(said)), list(chain.from_iterable(spread))


def synthesise(text, voice):
    """16 kHz int16."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "-t", text, "-o", file.name]
        if voice not in FLITE:
            command = ["espeak-ng", "-v", voice, "-s", "150", "-w", file.name, text]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = soundfile.read(file.name, dtype="float32")
    resampled = soxr.resample(samples, rate, RATE)
    return (np.clip(resampled, -1, 1) * 32_000).astype(np.int16)


def recordings(templates, turns, seed):
    """For each voice its samples and its turns: (first second, last second, words, policies)."""
    corpus = Corpus(seed)
    said = [spoken_turn(*corpus.turn(templates[n % len(templates)])) for n in range(turns)]
    for number, voice in enumerate(VOICES):
        parts, spans, at = [np.zeros(RATE // 2, np.int16)], [], 0.5
        for words, policies in said[number :: len(VOICES)]:
            samples = synthesise(" ".join(words), voice)
            length = len(samples) / RATE
            spans.append((at, at + length, words, policies))
            parts += [samples, np.zeros(int(PAUSE * RATE), np.int16)]
            at += length + PAUSE
        yield voice, np.concatenate(parts), spans


# -- through the server ----------------------------------------------------------------------------


class Collector(BaseHTTPRequestHandler):
    """Takes webhooks."""

    bodies: ClassVar[list] = []

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def server(engine, usage, webhooks):
    """Its program and port; the address of the webhooks' collector."""
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    port = free_port()
    program = Program(
        ["serve", "--engines", engine, "--host", "127.0.0.1", "--port", port, "--speakers", "false",
         "--redaction", "true", "--usage-dir", usage, "--webhook-hosts", "127.0.0.1",
         "--webhook-dir", webhooks, "--log-level", "debug", "--log-format", "json"]
    ).start()  # fmt: skip
    try:
        program.wait_ready(port)
        yield program, port, f"http://127.0.0.1:{collector.server_port}/"
    finally:
        program.stop()
        collector.shutdown()


async def session(port, samples, **query):
    """All messages."""
    url = f"ws://127.0.0.1:{port}/v3/ws?" + urlencode({"sample_rate": RATE, **query})
    messages = []
    headers = [(b"Authorization", b"self-hosted")]
    async with connect_websocket(url, headers=headers, unread=4_096) as websocket:

        async def receive():
            try:
                while True:
                    messages.append(json.loads(await websocket.get_message()))
            except ConnectionClosed:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for at in range(0, len(samples), 1_600):
                await websocket.send_message(samples[at : at + 1_600].tobytes())
            await websocket.send_message(json.dumps({"type": "Terminate"}))
    return messages


async def both(port, samples, **query):
    """Messages of a session as it is said, and of one that asks for redaction."""
    found = {}

    async def one(name, **more):
        found[name] = await session(port, samples, **query, **more)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "plain")
        hook = query.pop("webhook_url")
        nursery.start_soon(lambda: one("redacted", redact_pii="true", webhook_url=hook))
    return found["plain"], found["redacted"]


# -- what was hidden -------------------------------------------------------------------------------


def final_words(messages):
    turns = [m for m in messages if m.get("type") == "Turn" and m["end_of_turn"]]
    return [(word["start"] / 1_000, word["text"]) for turn in turns for word in turn["words"]]


def aligned(said, policies, heard):
    """For each recognised word the entities that it is part of, as (policy, number of entity)."""
    number, entity_of = 0, []
    for at, policy in enumerate(policies):
        number += at == 0 or policy != policies[at - 1]
        entity_of.append(None if policy is None else (policy, number))
    left = [(c, entity_of[atom.first]) for atom in read(said) for c in atom.text]
    right = [(c, (atom.first, atom.last)) for atom in read(heard) for c in atom.text]
    votes = [Counter() for _ in heard]
    matcher = SequenceMatcher(None, [c for c, _ in left], [c for c, _ in right], autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        for at in range(c, d):
            if b > a:
                entity = left[a + (at - c) * (b - a) // (d - c)][1]
            else:
                around = {left[i][1] for i in (a - 1, a) if 0 <= i < len(left)}
                entity = around.pop() if len(around) == 1 else None
            first, last = right[at][1]
            for word in range(first, last + 1):
                votes[word][entity] += 1
    return [vote.most_common(1)[0][0] if vote else None for vote in votes]


def turns_of(spans, words):
    """The words of each turn, by their times."""
    for at, (began, _, said, policies) in enumerate(spans):
        following = spans[at + 1][0] if at + 1 < len(spans) else 1e9
        yield said, policies, [n for n, (start, _) in enumerate(words)
                               if began - 0.4 <= start < following - 0.4]  # fmt: skip


class Tally:
    def __init__(self, detector):
        self.detector = detector
        self.entities, self.found = Counter(), Counter()
        self.whole, self.alone = Counter(), Counter()
        self.leaks, self.stretches, self.right = [], 0, 0
        self.distinctive = set()

    def add(self, spans, plain, redacted):
        words, shown = final_words(plain), final_words(redacted)
        if len(words) != len(shown):
            raise SystemExit(f"{len(words)} words, and {len(shown)} with redaction")
        for said, policies, at in turns_of(spans, words):
            heard, seen = [words[n][1] for n in at], [shown[n][1] for n in at]
            self._turn(said, policies, heard, [text.startswith("####") for text in seen])

    def _turn(self, said, policies, heard, hidden):
        entities = aligned(said, policies, heard)
        findings = self.detector.find(heard)
        for entity in dict.fromkeys(filter(None, entities)):
            places = [at for at, each in enumerate(entities) if each == entity]
            alone = policies_of(findings, frozenset({entity[0]}), len(heard))
            self.entities[entity[0]] += 1
            self.alone[entity[0]] += all(
                alone[at] or heard[at].strip(".,?!").lower() in SAYS_NOTHING for at in places
            )
            shown = [heard[at] for at in places if not hidden[at]]
            self.whole[entity[0]] += not shown
            shown = [word for word in shown if word.strip(".,?!").lower() not in SAYS_NOTHING]
            self.found[entity[0]] += not shown
            if shown:
                text = " ".join(f"[{w}]" if hidden[at] else w for at, w in enumerate(heard))
                self.leaks.append({"policy": entity[0], "shown": " ".join(shown), "turn": text})
            for at in places:
                if hidden[at] and re.search(r"\w{7}", heard[at]):
                    self.distinctive.add(heard[at].strip(".,?!").lower())
        for first, last in stretches(hidden):
            self.stretches += 1
            self.right += any(entities[first : last + 1])

    def result(self):
        count = sum(self.entities.values())
        return {
            "entities": count,
            "recall": round(sum(self.found.values()) / count, 4),
            "whole": round(sum(self.whole.values()) / count, 4),
            "alone": round(sum(self.alone.values()) / count, 4),
            "precision": round(self.right / max(self.stretches, 1), 4),
            "by_policy": {
                policy: [self.found[policy], self.alone[policy], total]
                for policy, total in sorted(self.entities.items())
            },
            "leaks": self.leaks,
        }


def saved_output(port, samples, folder, model):
    """What ``ssasr transcribe`` writes."""
    path, saved = folder / "said.wav", folder / f"saved-{model}.json"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    program = Program(
        ["transcribe", "--endpoint", f"ws://127.0.0.1:{port}/v3/ws", "--redact", "all", "--pace",
         "fast", "--speech-model", model, "--language", "en", "--output", saved, path]
    ).start()  # fmt: skip
    if program.wait(300) != 0:
        raise SystemExit(program.stderr)
    return saved.read_text() + program.stderr


def measure(engine, spoken, detector, dump):
    """Results by model; ``dump`` gets what was heard, for work on the rules."""
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usage, hooks = folder / "usage", folder / "hooks"
        with server(engine, usage, hooks) as (program, port, hook):
            for model in SPEECH_MODELS[engine]:
                tally, shown = Tally(detector), []
                query = {"speech_model": model, "format_turns": "true", "webhook_url": hook}
                query |= {"language_codes": '["en"]'} if engine == "multilingual" else {}
                for voice, samples, spans in spoken:
                    plain, redacted = trio.run(lambda q=query, s=samples: both(port, s, **q))
                    tally.add(spans, plain, redacted)
                    shown.append(json.dumps(redacted))
                    dump.append([engine, model, voice, spans, final_words(plain)])
                metrics = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
                files = [*usage.rglob("*"), *hooks.rglob("*")]
                records = "".join(p.read_text(errors="replace") for p in files if p.is_file())
                outputs = {
                    "log": program.stderr, "metrics": metrics, "records": records,
                    "webhooks": "".join(Collector.bodies), "messages": "".join(shown),
                    "saved": saved_output(port, spoken[0][1], folder, model),
                }  # fmt: skip
                results[model] = tally.result() | {"outputs": found_in(outputs, tally)}
    return results


def rules_alone(recognised, detector):
    """The same of words that were recognised before: the rules may have changed."""
    tallies = {}
    for engine, model, _, spans, words in recognised:
        tally = tallies.setdefault(f"{engine}, {model}", Tally(detector))
        for said, policies, at in turns_of(spans, words):
            texts = [words[n][1] for n in at]
            hidden = policies_of(detector.find(texts), LANGUAGES["en"], len(texts))
            tally._turn(said, policies, texts, [each is not None for each in hidden])
    return {name: tally.result() for name, tally in tallies.items()}


def found_in(outputs, tally):
    """Distinctive words that were hidden wherever they were said, and are written somewhere."""
    leaked = " ".join(leak["turn"] for leak in tally.leaks).lower()
    plain = {word for word in tally.distinctive if word not in leaked}
    return {
        name: [len(plain), sorted(word for word in plain if word in text.lower())]
        for name, text in outputs.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=70)
    parser.add_argument("--templates", choices=("choices", "once"), default="choices")
    parser.add_argument("--engines", default="english,multilingual")
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--write", type=Path, metavar="WORDS", help="what was recognised")
    parser.add_argument("--read", type=Path, metavar="WORDS", help="measure the rules on that")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    detector, dump = Detector(load(catalogue.resolve(MODEL, pull=False).directory)), []
    if given.read:
        words = json.loads(given.read.read_text())
        publish({**conditions(), "engines": rules_alone(words, detector)}, given.json)
        return
    templates = CHOICES if given.templates == "choices" else ONCE
    spoken = list(recordings(templates, given.turns, given.seed))
    minutes = sum(len(samples) for _, samples, _ in spoken) / RATE / 60
    results = {
        engine: measure(engine, spoken, detector, dump) for engine in given.engines.split(",")
    }
    if given.write:
        given.write.write_text(json.dumps(dump) + "\n")
    publish(
        {**conditions(), "turns": given.turns, "templates": given.templates, "seed": given.seed,
         "voices": list(VOICES), "minutes": round(minutes, 1), "engines": results},
        given.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
