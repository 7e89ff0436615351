from __future__ import annotations

import gc

from corpusgen.garbage import SELDOM, seldom_collected


def test_garbage_is_looked_for_less_often_until_the_last_of_several_is_closed() -> None:
    before = gc.get_threshold()
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold()[0] == max(before[0], SELDOM)
        assert gc.get_threshold()[0] == max(before[0], SELDOM)
    assert gc.get_threshold() == before


def test_who_has_switched_the_search_off_finds_it_off() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with seldom_collected():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
