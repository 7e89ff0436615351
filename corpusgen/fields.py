"""How people write the fields of a file: amounts, names, places; what every part of a spec is made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from corpusgen.records import Json

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"

MOST = 10**15
"""The largest amount of anything: a thousand million dollars, or 10**15 tokens."""

Unit = Literal["microusd", "tokens", "requests", "compute_us", "wall_us"]
Per = Literal["total", "day", "month"]
"""What a cap holds for; days and months are those of UTC."""
Place = tuple[str | int, ...]


class Part(BaseModel):
    """Some fields of a file: no others, none changed after reading, numbers not read out of text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Misplaced(ValueError):
    """Mistakes between fields, each with the path of the field it stands at."""

    def __init__(self, *mistakes: tuple[Place, str]) -> None:
        super().__init__("; ".join(message for _, message in mistakes))
        self.mistakes = mistakes


def microusd(value: Json) -> int:
    """Dollars as written by a person, as integer micro-dollars. Refuses fractions of a micro-dollar and negatives."""
    amount = _decimal(value, "an amount of dollars, such as 2.50")
    if amount > MOST // 1_000_000:
        raise ValueError(f"{value} dollars is more than can be counted; write {MOST // 1_000_000} or less")
    if amount * 1_000_000 != (amount * 1_000_000).to_integral_value():
        raise ValueError(f"{value} has more than six decimals; the smallest amount is 0.000001")
    return int(amount * 1_000_000)


def count(value: Json) -> int:
    """A whole, non-negative number; ``1e6`` is one."""
    number = _decimal(value, "a whole number")
    if number > MOST:
        raise ValueError(f"{value} is more than can be counted; write {MOST} or less")
    if number != number.to_integral_value():
        raise ValueError(f"must be a whole number, found {value!r}")
    return int(number)


def seconds(value: Json) -> int:
    """Seconds as written by a person, as integer microseconds."""
    number = _decimal(value, "a number of seconds, such as 90")
    if number > MOST // 1_000_000:
        raise ValueError(f"{value} seconds is more than can be counted; write {MOST // 1_000_000} or less")
    return int(number * 1_000_000)


def _decimal(value: Json, wanted: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError(f"must be {wanted}, found {shown(value)}")
    try:
        number = Decimal(str(value))
    except ArithmeticError as error:
        raise ValueError(f"must be {wanted}, found {value!r}") from error
    if not number.is_finite() or number < 0:
        raise ValueError(f"must be {wanted}, 0 or more, found {value}")
    return number


_Written = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^[0-9][0-9._eE+-]*$")]
"""How people may write an amount, for the JSON Schema: 2.50, 1e6 or "0.10"."""
MicroUsd = Annotated[int, BeforeValidator(microusd, json_schema_input_type=_Written)]
Count = Annotated[int, BeforeValidator(count, json_schema_input_type=_Written)]
Seconds = Annotated[int, BeforeValidator(seconds, json_schema_input_type=_Written)]
Several = Annotated[int, Field(ge=1), BeforeValidator(count, json_schema_input_type=_Written)]
Seed = Annotated[int, Field(le=2**32 - 1), BeforeValidator(count, json_schema_input_type=_Written)]


def shown(value: Json) -> str:
    """A value as messages show it: short, and nothing of what is inside."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "fields" if value else "no fields"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
