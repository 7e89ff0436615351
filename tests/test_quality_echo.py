from __future__ import annotations

from quality_samples import answer, drops, said

from corpusgen.records import Message

PROMPT = (
    "Explain in two sentences why the sea is salty and rivers are not, and name a lake that is saltier than the sea."
)


def test_the_prompt_itself_is_no_answer() -> None:
    found = said("echo", answer(PROMPT.upper(), prompt=PROMPT))
    assert found is not None
    assert (found.kept, found.reason) == (False, "is the prompt")


def test_a_prompt_gone_on_with_is_no_answer() -> None:
    found = said("echo", answer(PROMPT + " Rivers carry salt into the sea, where it stays.", prompt=PROMPT))
    assert found is not None
    assert found.reason == "begins with the whole prompt"


def test_the_score_is_the_share_of_phrases_that_stand_in_the_prompt() -> None:
    found = said(
        "echo", answer("Rivers carry salt into the sea, where water leaves and salt stays for ever.", prompt=PROMPT)
    )
    assert found is not None
    assert (found.kept, found.score) == (True, 0.0)


def test_a_task_that_extracts_text_can_allow_all_of_it() -> None:
    part = " ".join(PROMPT.split()[4:20])
    assert drops("echo", answer(part, prompt=PROMPT))
    assert not drops("echo", answer(part, prompt=PROMPT), max_share=1.0)


def test_a_short_answer_may_quote_and_a_label_stands_in_the_prompt() -> None:
    assert said("echo", answer("the sea is salty and rivers are not", prompt=PROMPT)) is None
    assert said("echo", answer(PROMPT, prompt=PROMPT, kind="label")) is None


def test_only_the_last_message_counts() -> None:
    turns = (Message(role="user", content=PROMPT), Message(role="user", content="Go on."))
    assert not drops("echo", answer(PROMPT, messages=turns))
    assert said("echo", answer(PROMPT, messages=())) is None
