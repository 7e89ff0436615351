"""Claude on Google's Vertex AI: ``vertex/<model>``, asked in Anthropic's Messages, signed in by the anthropic SDK.

The project is in ``ANTHROPIC_VERTEX_PROJECT_ID``. With ``key_env`` the variable holds an access token; without it
Google's own chain (application default credentials) is asked, which needs the extra ``vertex``.
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
from corpusgen.teachers.cloud import connected_cloud, offers_of
from corpusgen.teachers.endpoint import Endpoint, resolved
from corpusgen.teachers.sdk import Client, anthropic_headers, failures_of
from corpusgen.teachers.teacher import Offer
from corpusgen.teachers.transport import Clock, Transport

if TYPE_CHECKING:
    import httpx2

PROJECT_ENV: Final = "ANTHROPIC_VERTEX_PROJECT_ID"
REGION_ENV: Final = "CLOUD_ML_REGION"
_REGION: Final = re.compile(r"//(?:aiplatform\.([a-z]+)\.rep|([a-z0-9-]+)-aiplatform|aiplatform)\.googleapis\.com")


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The model a spec names; nothing is sent yet. Raises UsageError, or UnknownTeacher if the extra is missing."""
    if spec.key_env is None and not _installed():
        raise UnknownTeacher(
            f"{spec.name}: to sign in to Google, install the extra: pip install 'corpusgen-distill[vertex]'; or name"
            " with key_env a variable that holds an access token, which needs no more than is here"
        )
    project = os.environ.get(PROJECT_ENV, "").strip()
    if not project:
        raise UsageError(f"{spec.name}: {PROJECT_ENV} is not set; export the project that pays")
    opens = partial(_opened, project=project, region=_region(resolved(spec).base_url))
    return connected_cloud(spec, clock, like=spec.name.partition("/")[2], opens=opens)


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    return offers_of("vertex", installed=_installed())


def _opened(transport: Transport, carried: httpx2.AsyncClient, *, project: str, region: str) -> Client:
    import anthropic

    sdk = anthropic.AsyncAnthropicVertex(
        region=region,
        project_id=project,
        access_token=None if transport.secret is None else transport.secret.reveal(),
        base_url=transport.base_url,
        http_client=carried,
        max_retries=0,
        open_telemetry=False,
    )
    broken, passing = _google()
    return Client(
        sdk=sdk,
        headers=anthropic_headers(),
        failures=failures_of(anthropic.AnthropicError, *broken),
        passing=passing,
        signs=True,
        hint="sign in as gcloud does: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS",
    )


def _region(base_url: str | None) -> str:
    """The region asked, which is part of the path: that of the address, else the environment's."""
    found = _REGION.search(base_url or "")
    region = (found[1] or found[2] or "global") if found else os.environ.get(REGION_ENV)
    if not region:
        raise UsageError(f"base_url: Vertex AI has an address in each region; set {REGION_ENV} to the one to ask")
    return region


def _google() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What Google's library raises, and what of it may be over at the next try."""
    if not _installed():
        return (), ()
    from google.auth.exceptions import GoogleAuthError, TransportError

    return (GoogleAuthError,), (TransportError,)


def _installed() -> bool:
    try:
        return find_spec("google.auth") is not None
    except ModuleNotFoundError:
        return False
