#!/bin/sh
# The peers' own environment, which is never the project's: peers/environment.sh FOLDER
set -eu
python3.11 -m venv "$1"
"$1/bin/pip" install --quiet moonshine-voice==0.0.49 faster-whisper==1.2.1 soundfile==0.14.0 soxr==1.1.0
# WhisperLiveKit wants any torch; the one without CUDA is enough.
"$1/bin/pip" install --quiet whisperlivekit==0.2.26 torch==2.13.0
