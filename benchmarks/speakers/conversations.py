"""Conversations made from the recordings of single readers, with who says which word when.

    python -m benchmarks.speakers.conversations MANIFEST OUTPUT [--seed N] [--count N] [--alike N]

``MANIFEST`` names one clip a line (``id``, ``file``, ``speaker``, ``duration``). The readers are
split in two by a checksum of their names: ``choices``, for whatever is chosen by looking, and
``judged``. A conversation has 2 to 6 of them; their clips are cut into turns of 1 to 15 s where the
reader pauses, dealt out with gaps of -0.5 to 2 s, each reader at a level of his own (within 6 dB of
the others), and in one conversation of four one reader is on the telephone. No audio is used twice
in a conversation. Words and their times are those of our own offline decode of the whole clip, so
that what is measured is who speaks, not what. With ``--alike`` two of every conversation's readers
are one of the N pairs of their half whose voices are most alike, by the embeddings of all they say.
Real meetings of the manifest are copied beside them, as they are: they have turns, and no words.
"""

import argparse
import json
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import soxr
import torch
from torch.nn.functional import normalize

from ssasr.engine.recognizer import RecognizerSettings
from ssasr.engine.speakers.campplus import CamPlusPlus
from ssasr.engine.whisper.decoding import Request
from ssasr.engine.whisper.recognizer import create
from ssasr.engine.whisper.segment import Due, Kind
from ssasr.models import catalogue

RATE = 16_000
SHORTEST, LONGEST = 1.0, 15.0
GAPS = (-0.5, 2.0)
LEVEL_DB = 6.0
LOUDNESS = 0.05
"""Root mean square of a reader at 0 dB."""
HALVES = ("choices", "judged")


def half_of(speaker):
    return HALVES[sha256(speaker.encode()).digest()[0] % 2]


def clips_of(manifest):
    """The English read clips of each reader."""
    readers = {}
    for line in manifest.read_text().splitlines():
        clip = json.loads(line)
        if clip["category"] == "read_en":
            readers.setdefault(clip["speaker"], []).append(clip)
    return readers


@torch.inference_mode()
def decode(recognizer, samples):
    """Words (text, start, end) in samples, of a whole recording."""
    request, due = Request(samples, "en"), Due(Kind.FINAL, 0, len(samples))
    words = [spoken.word for spoken in recognizer._decode([request], [due])[0][1]]
    return [(word.text, word.start, word.end) for word in words]


def decoded(manifest, readers, cache):
    """Words of every clip, kept in a file from one run to the next."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    clips = [clip for each in readers.values() for clip in each if clip["id"] not in known]
    if clips:
        recognizer = create(RecognizerSettings("tiny.en", "cpu", threads=1))
        for clip in clips:
            samples, _ = soundfile.read(manifest.parent / clip["file"], dtype="float32")
            known[clip["id"]] = decode(recognizer, samples)
        cache.write_text(json.dumps(known))
    return known


def turns_of(words, random):
    """Runs of words of 1 to 15 s, cut where the pause is longest near a length drawn by chance."""
    turns, first = [], 0
    while first < len(words):
        wanted = random.uniform(SHORTEST, LONGEST) * RATE
        last = first
        while last + 1 < len(words) and words[last + 1][2] - words[first][1] <= wanted:
            last += 1
        near = range(max(first, last - 4), last + 1)
        if last + 1 < len(words):
            last = max(near, key=lambda i: words[i + 1][1] - words[i][2])
        if words[last][2] - words[first][1] >= SHORTEST * RATE:
            turns.append(words[first : last + 1])
        first = last + 1
    return turns


def telephone(samples):
    """Band-limited to 8 kHz and through µ-law."""
    narrow = np.clip(soxr.resample(samples, RATE, 8_000), -1, 1)
    level = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    level = np.round(level * 127) / 127
    narrow = np.sign(level) * np.expm1(np.abs(level) * np.log(256)) / 255
    return soxr.resample(narrow.astype(np.float32), 8_000, RATE)


def excerpts(manifest, clips, words, random, on_telephone):
    """(samples, words from its own start) of one reader's turns, at his level."""
    level = LOUDNESS * 10 ** (random.uniform(-LEVEL_DB, LEVEL_DB) / 20)
    found = []
    for clip in clips:
        samples, _ = soundfile.read(manifest.parent / clip["file"], dtype="float32")
        samples *= level / max(float(np.sqrt((samples**2).mean())), 1e-4)
        if on_telephone:
            samples = telephone(samples)
        for turn in turns_of(words[clip["id"]], random):
            begin, end = max(turn[0][1] - 800, 0), min(turn[-1][2] + 800, len(samples))
            said = [(text, start - begin, stop - begin) for text, start, stop in turn]
            found.append((samples[begin:end], said))
    return found


def dealt(turns, random, seconds):
    """Whose turn comes after whose: never the same reader twice, while others have any left."""
    order, before = [], None
    left = {speaker: list(each) for speaker, each in turns.items()}
    while any(left.values()) and sum(len(s) for _, (s, _) in order) < seconds * RATE:
        able = [speaker for speaker, each in left.items() if each]
        others = [speaker for speaker in able if speaker != before] or able
        fresh = [s for s in others if not any(s == said for said, _ in order)]
        before = random.choice(fresh or others)
        order.append((before, left[before].pop(0)))
    return order


def mixed(order, random):
    """Samples, turns (speaker, start, end) and words (speaker, text, start, end)."""
    end = RATE // 2
    placed = []
    for speaker, (samples, said) in order:
        start = max(0, end + int(random.uniform(*GAPS) * RATE)) if placed else end
        placed.append((speaker, start, samples, said))
        end = start + len(samples)
    length = max(start + len(samples) for _, start, samples, _ in placed) + RATE
    noise = np.random.default_rng(random.randrange(1 << 30)).normal(0, 3e-4, length)
    mix = noise.astype(np.float32)
    turns, words = [], []
    for speaker, start, samples, said in placed:
        mix[start : start + len(samples)] += samples
        turns.append((speaker, start + said[0][1], start + said[-1][2]))
        words += [(speaker, text, start + a, start + b) for text, a, b in said]
    return np.clip(mix, -1, 1), turns, sorted(words, key=lambda word: word[2])


@torch.inference_mode()
def alike_pairs(manifest, readers, half, count):
    """The ``count`` pairs of readers of a half whose voices have the greatest cosines."""
    files = catalogue.resolve("speakers", pull=True)
    embed = CamPlusPlus.load(files.path("campplus_cn_en_common.pt")).embed
    voices = {}
    for speaker in sorted(each for each in readers if half_of(each) == half):
        clips = (soundfile.read(manifest.parent / clip["file"], dtype="float32")[0]
                 for clip in readers[speaker])  # fmt: skip
        said = [normalize(embed(torch.from_numpy(clip[None])), dim=1)[0] for clip in clips]
        voices[speaker] = normalize(torch.stack(said).mean(dim=0), dim=0)
    pairs = combinations(voices, 2)
    return sorted(pairs, key=lambda pair: -float(voices[pair[0]] @ voices[pair[1]]))[:count]


def cast(readers, half, number, random, pairs):
    """2 to 6 readers in turn, so that each number is met as often; a pair of them, if any."""
    able = sorted(speaker for speaker in readers if half_of(speaker) == half)
    pair = random.choice(pairs) if pairs else ()
    others = [speaker for speaker in able if speaker not in pair]
    return [*pair, *random.sample(others, 2 + number % 5 - len(pair))]


def make(manifest, readers, words, half, speakers, number, random, seconds):
    """One conversation of these speakers."""
    phone = random.choice(speakers) if number % 4 == 3 else None
    turns = {
        speaker: excerpts(manifest, readers[speaker], words, random, speaker == phone)
        for speaker in speakers
    }
    for each in turns.values():
        random.shuffle(each)
    samples, said, words = mixed(dealt(turns, random, seconds), random)
    names = list(dict.fromkeys(speaker for speaker, _, _ in said))
    about = {"half": half, "speakers": names, "telephone": phone, "turns": said, "words": words}
    return samples, about


def copy_meetings(manifest, output):
    clips = map(json.loads, manifest.read_text().splitlines())
    meetings = [clip for clip in clips if clip["category"] == "meeting_overlap_en"]
    for number, clip in enumerate(meetings):
        samples, _ = soundfile.read(manifest.parent / clip["file"], dtype="float32")
        turns = [(who, int(a * RATE), int(b * RATE)) for a, b, who in clip["speaker_turns"]]
        speakers = sorted({who for who, _, _ in turns})
        about = {"half": "meetings", "speakers": speakers, "turns": turns, "words": []}
        soundfile.write(output / f"meetings-{number:02}.flac", samples, RATE, subtype="PCM_16")
        (output / f"meetings-{number:02}.json").write_text(json.dumps(about))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=15, help="conversations of each half")
    parser.add_argument("--seconds", type=float, default=90.0, help="speech in one, at most")
    parser.add_argument("--alike", type=int, default=0, help="pairs of a half that are cast")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    readers = clips_of(given.manifest)
    copy_meetings(given.manifest, given.output)
    words = decoded(given.manifest, readers, given.output / "decoded.json")
    total = 0
    for half in HALVES:
        pairs = alike_pairs(given.manifest, readers, half, given.alike) if given.alike else []
        for number in range(given.count):
            random = Random(f"{given.seed} {half} {number}")
            speakers = cast(readers, half, number, random, pairs)
            samples, about = make(
                given.manifest, readers, words, half, speakers, number, random, given.seconds
            )
            name = f"{half}-{number:02}"
            soundfile.write(given.output / f"{name}.flac", samples, RATE, subtype="PCM_16")
            (given.output / f"{name}.json").write_text(json.dumps(about))
            total += len(samples)
    print(f"{2 * given.count} conversations, {total / RATE / 60:.1f} min")


if __name__ == "__main__":
    main()
