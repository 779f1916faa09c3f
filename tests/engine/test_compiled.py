"""Compiled functions, with and without a place to keep them."""

from ssasr.engine import compiled


def test_without_a_place_to_keep_it_a_function_is_compiled_at_every_start(monkeypatch):
    asked = []

    def njit(cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled.compiled(abs) is abs
    assert asked == [True, False]
