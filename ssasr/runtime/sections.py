"""Lists that come with the package: text files with a line for each entry, in named sections."""

from importlib import resources


def read_sections(name: str) -> dict[str, list[str]]:
    """The lines of ``data/NAME`` by their section, ``[section]``; without blank lines and ``#``
    comments."""
    text = resources.files("ssasr").joinpath("data", name).read_text("utf-8")
    found: dict[str, list[str]] = {}
    section = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            section = line.strip("[]")
        elif not line.startswith("#"):
            found.setdefault(section, []).append(line)
    return found
