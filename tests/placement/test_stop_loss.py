"""The stop-loss rule: stops where it must, tries again when it should, and says what it would have saved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.errors import ReplayError
from placement.stop_loss import StopLossSettings, judge_locations

TWO_AND_THREE = StopLossSettings(window_hours=2, retest_after_hours=3)


def on_by_hour(*saving: float, settings: StopLossSettings = TWO_AND_THREE) -> str:
    """`1` for each hour on, `0` for each hour off, then what comes next."""
    verdict = judge_locations(np.array(saving)[:, None], settings)
    return "".join(str(int(on)) for on in [*verdict.on[:, 0], verdict.on_next[0]])


def test_location__is_off_after_a_window_of_loss_and_tried_again() -> None:
    """-1 + 0.5 < 0 after the second hour: three hours off, then a trial of two hours that loses again."""
    assert on_by_hour(-1, 0.5, 9, 9, 9, -1, 0, 9) == "110001100"


def test_location__is_judged_after_a_full_window_alone() -> None:
    """The first fill costs at once what it earns later; one bad hour is no verdict."""
    assert on_by_hour(-5, 6) == "111"
    assert on_by_hour(-5) == "11"


def test_location__without_gain_or_loss_stays_on() -> None:
    """Nothing is lost where nothing is pushed."""
    assert on_by_hour(0, 0, 0) == "1111"


def test_window__slides() -> None:
    """4 - 3 is a gain, -3 + 1 is not."""
    assert on_by_hour(4, -3, 1) == "1110"


def test_trial__forgets_what_led_to_the_stop() -> None:
    """After the rest a single good hour must not be judged together with the bad ones before."""
    assert on_by_hour(-9, -9, 0, 0, 0, 1, 1) == "11000111"


def test_verdicts__say_what_would_have_been_saved() -> None:
    """Off in hours 2 to 4: of -2, -1, -4, -4, -4, 3 are lost 15 without the rule, and 0 with it; the other gains 6."""
    saving = np.array([[-2, 1], [-1, 1], [-4, 1], [-4, 1], [-4, 1], [3, 1.0]])
    verdict = judge_locations(saving, TWO_AND_THREE)
    assert verdict.saved.tolist() == [-12, 6]
    assert verdict.saved_with.tolist() == [0, 6]
    assert verdict.hours_off.tolist() == [3, 0]
    assert verdict.on_next.tolist() == [True, True]


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_rule__is_the_definition(saving: list[int], window: int, rest: int) -> None:
    """A location written out hour by hour, as the head of the module says it."""
    on, since, expected = True, 0, ""
    for hour in range(len(saving)):
        expected += str(int(on))
        length = hour + 1 - since
        if on and length >= window and sum(saving[hour + 1 - window : hour + 1]) < 0:
            on, since = False, hour + 1
        elif not on and length >= rest:
            on, since = True, hour + 1
    found = on_by_hour(*saving, settings=StopLossSettings(window, rest))
    assert found == expected + str(int(on))


def test_settings__name_every_mistake() -> None:
    """A window of no hours would stop everything at once."""
    with pytest.raises(ReplayError, match=r"window_hours >= 1, got 0.*\n.*retest_after_hours >= 1, got -2"):
        StopLossSettings(window_hours=0, retest_after_hours=-2)
