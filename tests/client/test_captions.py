"""The rules of captions: the command's and the page's, on the same vectors and on random speech."""

import json
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import srt
import webvtt
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from ssasr.client import subtitles
from ssasr.client.captions import BREAK, COLUMN, LINE, LONGEST, cues
from ssasr.protocol.joining import columns
from ssasr.protocol.messages import Turn, TurnWord

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "data" / "captions.json").read_text("utf-8"))
SCRIPTS = (
    "and so my fellow Americans ask not what, your country. can do for; you? Dr. extraordinarily",
    "今天 天气 很好， 我们 去 公园。 发现 了 一个 老 朋友",
    "สวัสดีครับวันนี้อากาศดีมาก เรา ไปเดินเล่นที่สวนสาธารณะกันเถอะแล้วค่อยไปหาเพื่อนเก่าของเรา",
)


def turns_of(rows):
    return [
        Turn(
            order, True, True, "", "", 1.0,
            tuple(TurnWord(text, start, end, 0.9, True, who) for text, start, end, who in words),
        )
        for order, words in enumerate(rows)
    ]  # fmt: skip


def plain(found):
    return [[cue.start, cue.end, cue.speaker, cue.lines] for cue in found]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_captions_are_cut_where_the_vectors_say(vector):
    assert plain(cues(turns_of(vector["turns"]))) == vector["cues"]


def talk(seed):
    """Turns in several scripts, at any speed, with pauses and speakers now and then."""
    draw = random.Random(seed)
    at, speaker, rows = 0, draw.choice([None, "A"]), []
    for _ in range(draw.randint(1, 5)):
        words = draw.choice(SCRIPTS).split()
        row = []
        for _ in range(draw.choice([1, 2, 12, 40])):
            text = draw.choice(words)
            length = draw.randint(10, 90) * len(text)
            row.append([text, at, at + length, speaker])
            at += length + draw.choice(
                [0, 0, 50, 400, 1_600, 4_000] if draw.random() < 0.2 else [0]
            )
        rows.append(row)
        speaker = speaker and draw.choice("AB")
    return rows


@given(st.integers(0, 10**9))
def test_every_caption_can_be_read(seed):
    rows = talk(seed)
    found = cues(turns_of(rows))
    said = "".join(text for row in rows for text, *_ in row)
    assert "".join("".join(cue.lines) for cue in found).replace(" ", "") == said
    words = [word for row in rows for word in row]
    for cue, following in pairwise(found):
        assert cue.end <= following.start
    for cue in found:
        lead = 0 if cue.speaker is None else len(cue.speaker) + 2
        assert len(cue.lines) <= 2
        assert lead + columns(cue.lines[0]) <= LINE
        assert all(columns(line) <= LINE for line in cue.lines)
        if " " in " ".join(cue.lines):
            assert cue.end - cue.start <= LONGEST
        inside = [word for word in words if cue.start <= word[1] < cue.end]
        assert all(after[1] - before[2] < BREAK for before, after in pairwise(inside))


def test_speech_at_an_ordinary_speed_is_readable_and_no_word_stands_alone():
    """Four words a second or so, with a breath now and then."""
    draw, at, rows = random.Random(3), 0, []
    words = SCRIPTS[0].split()
    for _ in range(60):
        row = []
        for _ in range(draw.randint(1, 30)):
            text = draw.choice(words)
            row.append([text, at, at + 60 * len(text), None])
            at += 60 * len(text) + draw.choice([20, 20, 20, 350])
        rows.append(row)
        at += 700
    found = cues(turns_of(rows))
    assert not [cue for cue in found if len(" ".join(cue.lines).split()) == 1]
    fast = [cue for cue in found if COLUMN * sum(map(columns, cue.lines)) > cue.end - cue.start]
    assert len(fast) <= len(found) // 50


def in_node(script, given):
    done = subprocess.run(
        ["node", "--input-type=module", "--no-warnings", "--eval", script],
        input=json.dumps(given), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_page_writes_speakers_alike():
    (rows,) = [vector["turns"] for vector in VECTORS if vector["name"] == "speakers"]
    turns = [evolve(turn, speaker_label=turn.words[0].speaker) for turn in turns_of(rows)]
    script = (
        f"import {{ FORMATS }} from {json.dumps(str(ROOT / 'ssasr/web/subtitles.js'))};"
        "import fs from 'node:fs';"
        "const word = ([text, start, end, speaker]) =>"
        " ({ text, start, end, confidence: 0.9, speaker });"
        "const turns = JSON.parse(fs.readFileSync(0, 'utf8')).map((words) =>"
        " ({ words: words.map(word), confidence: 1, speaker: words[0][3] }));"
        "const written = Object.entries(FORMATS).map(([name, [write]]) => [name, write(turns)]);"
        "console.log(JSON.stringify(Object.fromEntries(written)));"
    )
    theirs = in_node(script, rows)
    ours = {name: write(turns) for name, write in subtitles.FORMATS.items()}
    assert json.loads(theirs.pop("json")) == json.loads(ours.pop("json"))
    assert theirs == {"txt": ours["text"], "srt": ours["srt"], "vtt": ours["vtt"]}


def test_the_page_cuts_alike():
    rows = [vector["turns"] for vector in VECTORS] + [talk(seed) for seed in range(200)]
    script = (
        f"import {{ cues }} from {json.dumps(str(ROOT / 'ssasr/web/captions.js'))};"
        "import fs from 'node:fs';"
        "const word = ([text, start, end, speaker]) => ({ text, start, end, speaker });"
        "const turns = (rows) => rows.map((words) => ({ words: words.map(word) }));"
        "const plain = ({ start, end, speaker, lines }) => [start, end, speaker, lines];"
        "const all = JSON.parse(fs.readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(all.map((rows) => cues(turns(rows)).map(plain))));"
    )
    for row, theirs in zip(rows, in_node(script, rows), strict=True):
        assert theirs == plain(cues(turns_of(row)))


def seconds(timestamp):
    hours, minutes, rest = timestamp.split(":")
    return pytest.approx(3_600 * int(hours) + 60 * int(minutes) + float(rest))


@pytest.mark.parametrize("seed", range(20))
def test_other_parsers_read_what_is_written(seed):
    turns = turns_of(talk(seed))
    found = cues(turns)
    read = list(srt.parse(subtitles.srt(turns)))
    assert [each.index for each in read] == list(range(1, len(found) + 1))
    lead = [f"{cue.speaker}: " if cue.speaker else "" for cue in found]
    assert [each.content for each in read] == [
        who + "\n".join(cue.lines) for who, cue in zip(lead, found, strict=True)
    ]
    assert [each.start.total_seconds() for each in read] == [cue.start / 1_000 for cue in found]
    captions = webvtt.from_string(subtitles.vtt(turns)).captions
    assert [each.text.split("\n") for each in captions] == [cue.lines for cue in found]
    assert [each.voice for each in captions] == [cue.speaker for cue in found]
    assert [seconds(each.end) for each in captions] == [cue.end / 1_000 for cue in found]
