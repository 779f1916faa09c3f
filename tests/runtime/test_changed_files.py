"""What is noticed of files that are replaced."""

from functools import partial

import pytest
import trio

from ssasr.runtime.changed_files import PERIOD, watch_files


@pytest.fixture
async def watched(tmp_path, nursery, autojump_clock):
    """Two files by links, as Kubernetes mounts them, and how often a change was noticed."""
    folder = tmp_path / "2026-1"
    folder.mkdir()
    (tmp_path / "data").symlink_to(folder)
    paths = [tmp_path / "data" / name for name in ("keys", "tls.crt")]
    for path in paths:
        path.write_text("one")
    noticed = []
    nursery.start_soon(watch_files, paths, partial(noticed.append, "changed"))
    await trio.sleep(3.5 * PERIOD)
    assert noticed == []
    yield paths, noticed
    nursery.cancel_scope.cancel()


async def test_a_file_that_is_replaced(watched, autojump_clock):
    paths, noticed = watched
    for count in (1, 2):
        new = paths[0].with_suffix(".new")
        new.write_text("two")
        new.rename(paths[0])
        await trio.sleep(3 * PERIOD)
        assert len(noticed) == count


async def test_a_link_that_is_moved(watched, autojump_clock):
    paths, noticed = watched
    link = paths[0].parent
    folder = link.parent / "2026-2"
    folder.mkdir()
    for path in paths:
        (folder / path.name).write_text("one")
    (link.parent / "next").symlink_to(folder)
    (link.parent / "next").rename(link)
    await trio.sleep(3 * PERIOD)
    assert len(noticed) == 1


async def test_not_while_they_are_being_written(watched, autojump_clock):
    paths, noticed = watched
    for length in range(4, 9):
        paths[0].write_text("x" * length)
        await trio.sleep(PERIOD)
    assert noticed == []
    await trio.sleep(2 * PERIOD)
    assert len(noticed) == 1


async def test_one_that_is_gone_and_comes_back(watched, autojump_clock):
    paths, noticed = watched
    paths[1].unlink()
    await trio.sleep(3 * PERIOD)
    paths[1].write_text("two")
    await trio.sleep(3 * PERIOD)
    assert len(noticed) == 2
