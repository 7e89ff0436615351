"""Claude on Amazon Bedrock: ``bedrock/<model id>``, asked in Anthropic's Messages, signed by the anthropic SDK.

With ``AWS_BEARER_TOKEN_BEDROCK`` (or another variable under ``key_env``) the key is sent as it is; without one the
request is signed with whatever AWS's own chain finds (environment, profile, role), which needs the extra ``bedrock``.
"""

from __future__ import annotations

import os
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from corpusgen.errors import UnknownTeacher, UsageError
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.cloud import connected_cloud, key_at_home, offers_of
from corpusgen.teachers.endpoint import Endpoint, resolved
from corpusgen.teachers.sdk import Client, anthropic_headers, failures_of
from corpusgen.teachers.teacher import Offer
from corpusgen.teachers.transport import Clock, Transport

if TYPE_CHECKING:
    import httpx2

KEY_ENV: Final = "AWS_BEARER_TOKEN_BEDROCK"
_REGION: Final = re.compile(r"bedrock[a-z-]*\.([a-z0-9-]+)\.amazonaws\.com")


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The model a spec names; nothing is sent yet. Raises UsageError, or UnknownTeacher if the extra is missing."""
    spec = key_at_home(spec, KEY_ENV)
    if spec.key_env is None and not _installed():
        raise UnknownTeacher(
            f"{spec.name}: to sign in to AWS, install the extra: pip install 'corpusgen-distill[bedrock]'; or put a"
            f" Bedrock key into {KEY_ENV}, which needs no more than is here"
        )
    # us.anthropic.claude-… is the model claude-… by way of a group of regions.
    opens = partial(_opened, region=_region(resolved(spec).base_url))
    return connected_cloud(spec, clock, like=spec.name.rpartition("anthropic.")[2], opens=opens)


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    return offers_of("bedrock", installed=_installed())


def _opened(transport: Transport, carried: httpx2.AsyncClient, *, region: str) -> Client:
    import anthropic

    sdk = anthropic.AsyncAnthropicBedrock(
        aws_region=region,
        base_url=transport.base_url,
        http_client=carried,
        max_retries=0,
        open_telemetry=False,
    )
    # Set here, because left out it would be read from the environment for any address.
    sdk.api_key = None if transport.secret is None else transport.secret.reveal()
    broken, passing = _botocore()
    return Client(
        sdk=sdk,
        headers=anthropic_headers(),
        failures=failures_of(anthropic.AnthropicError, *broken),
        passing=passing,
        signs=True,
        hint=f"sign in as the AWS command line does (aws configure, AWS_PROFILE, a role), or put a key into {KEY_ENV}",
    )


def _region(base_url: str | None) -> str:
    """The region to sign for: that of the address, else the environment's."""
    found = _REGION.search(base_url or "")
    region = found[1] if found else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise UsageError("base_url: Bedrock has an address in each region; set AWS_REGION to the one to ask")
    return region


def _botocore() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What AWS's library raises, and what of it may be over at the next try."""
    if not _installed():
        return (), ()
    from botocore.exceptions import BotoCoreError, HTTPClientError

    return (BotoCoreError,), (HTTPClientError,)


def _installed() -> bool:
    return find_spec("boto3") is not None and find_spec("botocore") is not None
