from __future__ import annotations

from quality_samples import answer, drops, said

OPENED = "Certainly! Here is a riddle: what has keys but no locks? A piano."
CLOSED = "A piano has keys but no locks. I hope this helps!"


def test_openings_and_closings_can_be_looked_for_one_by_one() -> None:
    assert drops("boilerplate", answer(OPENED), closings=False)
    assert not drops("boilerplate", answer(OPENED), openings=False)
    assert drops("boilerplate", answer(CLOSED), openings=False)
    assert not drops("boilerplate", answer(CLOSED), closings=False)


def test_an_offer_in_the_last_but_one_sentence_is_found() -> None:
    assert drops("boilerplate", answer("Twelve. Let me know if you have more questions! Have a nice day."))


def test_an_offer_in_the_middle_is_not_looked_at() -> None:
    text = (
        "She wrote: let me know if you have any questions. Nobody had. So the vote was taken, and it was over by noon."
    )
    assert not drops("boilerplate", answer(text))


def test_further_phrases_can_be_named() -> None:
    found = said("boilerplate", answer("As the Manual  says, turn it off and on."), phrases=["as the manual says"])
    assert found is not None
    assert found.reason == "begins or ends with one of the phrases"
    assert not drops("boilerplate", answer("It is as the manual says there."), phrases=["as the manual says", " "])


def test_both_failings_have_their_own_reason() -> None:
    opened, closed = said("boilerplate", answer(OPENED)), said("boilerplate", answer(CLOSED))
    assert opened is not None
    assert closed is not None
    assert (opened.reason, closed.reason) == ("opens with a stock phrase", "ends with a stock offer")
