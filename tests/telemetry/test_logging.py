"""Logs are for people; no server ends because they cannot be written."""

import errno
import io

from ssasr.telemetry.logs import LogOutput


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_cannot_be_written_is_dropped_and_counted():
    output = LogOutput(FullDisk())
    output.write("a line\n")
    output.flush()
    assert output.lost == 2


def test_lines_are_written_as_they_are():
    stream = io.StringIO()
    output = LogOutput(stream)
    output.write("a line\n")
    output.flush()
    assert (stream.getvalue(), output.lost) == ("a line\n", 0)
