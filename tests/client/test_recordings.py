"""``ssasr transcribe`` with files, directories and patterns, against the scripted engine."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from ssasr.client.connection import ClientError
from ssasr.client.recordings import OutputChoice, Recording, find_files, plan
from ssasr.errors import UsageError
from tests.conftest import JFK
from tests.harness.processes import server


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_directories_are_searched_patterns_expanded_and_nothing_is_taken_twice(tmp_path):
    first, second, other = tmp_path / "b.wav", tmp_path / "in" / "a.FLAC", tmp_path / "notes.txt"
    touch(first, second, other, tmp_path / "._b.wav")
    found = [Recording(first, Path("b.wav")), Recording(second, Path("in/a.FLAC"))]
    assert find_files([str(tmp_path)]) == found
    assert find_files([str(tmp_path / "**" / "*.*"), str(first)])[:2] == found
    assert find_files([str(other), str(second)])[1] == Recording(second, Path("a.FLAC"))


@pytest.mark.parametrize("name", ["empty", "*.wav"])
def test_an_input_that_gives_nothing_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClientError, match="no recording there"):
        find_files([str(tmp_path / name)])


def choice(output=None, form=None):
    return OutputChoice((), output, form, False)


def named(*names):
    return [Recording(Path(name), Path(name)) for name in names]


def test_format_follows_the_suffix_and_one_file_goes_to_the_output_given(tmp_path):
    (job,) = plan(named("talk.wav"), choice("out/talk.srt"))
    assert (job.output, job.format) == (Path("out/talk.srt"), "srt")
    (job,) = plan(named("talk.wav"), choice("talk.out", "vtt"))
    assert (job.output, job.format) == (Path("talk.out"), "vtt")
    (job,) = plan(named("talk.wav"), choice(f"{tmp_path}/", "json"))
    assert job.output == tmp_path / "talk.json"
    with pytest.raises(UsageError, match=r"\.srt.*--format"):
        plan(named("talk.wav"), choice("talk.out"))
    (job,) = plan(named("talk.wav"), choice("talk"))
    assert (job.output, job.format) == (Path("talk"), "text")
    (job,) = plan(named("talk.wav"), choice(None, "srt"))
    assert job.output is None


def test_several_need_a_directory_and_different_names(tmp_path):
    jobs = plan(named("a.wav", "in/b.wav"), choice("out", "vtt"))
    assert [job.output for job in jobs] == [Path("out/a.vtt"), Path("out/in/b.vtt")]
    file = tmp_path / "file"
    file.touch()
    for output in (str(file), "all.srt", "all.doc"):
        with pytest.raises(UsageError, match="2 recordings need a directory"):
            plan(named("a.wav", "b.wav"), choice(output))
    (one, _) = plan(named("a.wav", "b.wav"), choice("all.d/"))
    assert one.output == Path("all.d/a.txt")
    with pytest.raises(UsageError, match=r"a\.wav and a\.flac would both be out/a\.txt"):
        plan(named("a.wav", "a.flac"), choice("out"))


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint():
    with server("--engine-kind", "scripted", "--engines", "english") as (_, port):
        yield f"ws://127.0.0.1:{port}/v3/ws"


def shown_words(endpoint):
    with urlopen(endpoint.replace("ws:", "http:").replace("/v3/ws", "/metrics")) as metrics:
        text = metrics.read().decode()
    (count,) = re.findall(r"^ssasr_word_lag_seconds_count(?:{.*})? ([\d.]+)", text, re.MULTILINE)
    return float(count)


def transcribe(endpoint, *arguments):
    command = [sys.executable, "-m", "ssasr", "transcribe", *map(str, arguments)]
    options = ["--endpoint", endpoint, "--pace", "fast"]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)


@pytest.fixture
def clips(tmp_path):
    samples, rate = soundfile.read(JFK, dtype="int16")
    folder = tmp_path / "clips"
    folder.mkdir()
    soundfile.write(folder / "one.wav", samples[: 3 * rate], rate)
    stereo = np.stack([samples[3 * rate : 6 * rate]] * 2, axis=1)
    soundfile.write(folder / "two.flac", stereo, rate)
    return folder


@pytest.mark.slow
def test_a_directory_becomes_a_directory_of_subtitles(endpoint, clips, tmp_path):
    out = tmp_path / "out"
    result = transcribe(endpoint, clips, "--output", out, "--format", "srt")
    assert (result.returncode, result.stdout) == (0, "")
    assert {path.name for path in out.iterdir()} == {"one.srt", "two.srt"}
    assert "00:00:0" in (out / "one.srt").read_text()
    assert result.stderr.count(" → ") == 2


@pytest.mark.slow
def test_formats_hold_the_words_that_the_messages_hold(endpoint, clips):
    file = clips / "one.wav"
    lines = transcribe(endpoint, file, "--json").stdout.splitlines()
    messages = [json.loads(line) for line in lines]
    assert [messages[0]["type"], messages[-1]["type"]] == ["Begin", "Termination"]
    ended = [each["transcript"] for each in messages if each.get("end_of_turn")]
    assert transcribe(endpoint, file, "--format", "text").stdout.splitlines() == ended
    turns = json.loads(transcribe(endpoint, file, "--format", "json").stdout)["turns"]
    assert [each["transcript"] for each in turns] == ended


@pytest.mark.slow
def test_what_decoders_think_of_a_file_stays_off_stderr(endpoint, clips, tmp_path):
    samples, rate = soundfile.read(clips / "one.wav")
    soundfile.write(tmp_path / "whole.mp3", samples, rate, format="MP3")
    data = (tmp_path / "whole.mp3").read_bytes()
    half = len(data) // 2
    (tmp_path / "damaged.mp3").write_bytes(data[:half] + b"\0garbage" * 200 + data[half:])
    (tmp_path / "cut.mp3").write_bytes(data[: half - 7])
    result = transcribe(endpoint, tmp_path / "cut.mp3", "--format", "text")
    assert (result.returncode, result.stderr) == (0, "")
    result = transcribe(endpoint, tmp_path / "damaged.mp3", "--format", "text")
    assert result.returncode == 1
    said = result.stderr.splitlines()
    assert all(line.startswith("ssasr: ") for line in said)
    assert "damaged after" in said[-1]


def take_interrupts():
    """As a terminal's foreground process does; what a shell starts in the background ignores them,
    and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_leaves_what_there_is(endpoint, clips, tmp_path):
    out = tmp_path / "out.srt"
    soundfile.write(clips / "long.wav", np.tile(soundfile.read(clips / "one.wav")[0], 60), 16_000)
    before = shown_words(endpoint)
    command = [sys.executable, "-m", "ssasr", "transcribe", clips / "long.wav", "--output", out]
    running = subprocess.Popen(
        [*map(str, command), "--endpoint", endpoint],
        stderr=subprocess.PIPE, text=True, preexec_fn=take_interrupts,
    )  # fmt: skip
    while shown_words(endpoint) < before + 5:
        assert running.poll() is None
        sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "incomplete" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()
    assert "-->" in (tmp_path / "out.partial.srt").read_text()


@pytest.mark.slow
def test_one_bad_recording_is_one_line_and_the_others_are_done(endpoint, clips, tmp_path):
    (clips / "broken.wav").write_text("not audio")
    result = transcribe(endpoint, clips, "--output", tmp_path / "out")
    assert result.returncode == 1
    failures = [line for line in result.stderr.splitlines() if line.startswith("ssasr: ")]
    assert len(failures) == 1
    assert "broken.wav" in failures[0]
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["missing.wav"], 1, "no such file"),
        (["missing/*.wav"], 1, "no recording there"),
        ([JFK, "--json", "--format", "srt"], 2, "--json"),
        ([JFK, "--endpoint", "http://localhost"], 1, "not a ws://"),
        ([JFK, "--endpoint", "ws://127.0.0.1:9/v3/ws"], 1, "cannot connect"),
        ([JFK, "--speech-model", "nonsense"], 1, "speech_model"),
        ([JFK, "--output", "/proc/nowhere/x.txt"], 1, "cannot write"),
    ],
)
def test_errors_are_one_line(endpoint, arguments, status, word):
    given = arguments if "--endpoint" in arguments else [*arguments, "--endpoint", endpoint]
    command = [sys.executable, "-m", "ssasr", "transcribe", *map(str, given), "--pace", "fast"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (line,) = [each for each in result.stderr.splitlines() if each.strip()]
    assert result.returncode == status
    assert line.startswith("ssasr: ")
    assert word in line
