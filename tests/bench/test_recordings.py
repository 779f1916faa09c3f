"""Which recordings a manifest means."""

import json

import numpy as np
import pytest
import soundfile

from ssasr.bench.recordings import AudioError, read_recordings


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "audio" / "clip.wav"
    path.parent.mkdir()
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    return path


def names(audio, *files, mark=""):
    manifest = audio.parent / "manifest.jsonl"
    lines = [json.dumps({"file": str(each), "reference": "x", "speech": []}) for each in files]
    manifest.write_text(mark + "\n".join(lines), encoding="utf-8")
    return [recording.name for recording in read_recordings(audio, manifest, 1.0, 0.1)]


def test_a_manifest_with_absolute_paths(clip, tmp_path):
    assert names(clip.parent, clip) == ["clip.wav"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert names(elsewhere, clip) == ["clip.wav"]


def test_a_folder_of_links(clip, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "linked.wav").symlink_to(clip)
    assert names(folder, "linked.wav") == ["linked.wav"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_names_that_are_relative_to_either(clip, mark):
    assert names(clip.parent, "clip.wav", "audio/clip.wav", mark=mark) == ["clip.wav"] * 2


def test_what_is_not_there_is_named(clip):
    with pytest.raises(AudioError, match=r"names missing\.wav"):
        names(clip.parent, "missing.wav")


def test_what_macos_keeps_beside_a_recording_is_none(clip):
    (clip.parent / "._clip.wav").write_bytes(b"\0\x05\x16\x07")
    assert len(read_recordings(clip.parent, None, 1.0, 0.1)) == 1
