"""Tokens: who may come in, for what, for how long."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.serve.api.models import TokenMade, TokensTold, TokenTold, TokenWanted
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.reading import body_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.statuses import NoSuch
from corpusgen.serve.tokens import Token, Wish, create, listed, revoke


def token_told(corpus: Corpus, token: Token) -> dict[str, object]:
    """A token without its secret, which nobody has."""
    return {
        "token_id": token.token_id,
        "name": token.name,
        "user": token.user,
        "scopes": list(token.scopes),
        "task": token.task,
        "state": token.state(corpus.clock()),
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
        "used": token.used,
    }


async def list_tokens(request: web.Request) -> web.Response:
    """Every token there ever was."""
    corpus = service_of(request).corpus
    found = await aside(listed, corpus)
    return said(TokensTold(tokens=[TokenTold.model_validate(token_told(corpus, one)) for one in found]))


async def make_token(request: web.Request) -> web.Response:
    """A new token; its secret is told this once."""
    wish, service = await body_of(request, TokenWanted), service_of(request)
    token, secret = await aside(create, service.corpus, _wish(wish), by=caller_of(request).user)
    service.tokens.look_again()
    made = TokenMade.model_validate({**token_told(service.corpus, token), "secret": secret})
    answer = said(made, status=201)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _wish(wish: TokenWanted) -> Wish:
    return Wish(
        name=wish.name,
        user=wish.user,
        scopes=tuple(wish.scopes),
        days=wish.days,
        task=wish.task,
        intended_use=wish.intended_use,
        may_name_users=wish.may_name_users,
        caps=None if wish.caps is None else wish.caps.by_unit(),
        per=wish.per,
    )


async def revoke_token(request: web.Request) -> web.Response:
    """Let a token be worth nothing from now on."""
    service = service_of(request)
    try:
        gone = await aside(revoke, service.corpus, request.match_info["token"], by=caller_of(request).user)
    except UsageError as error:
        raise NoSuch(str(error)) from error
    service.tokens.look_again()
    service.runs.look_again()
    return said(TokenTold.model_validate(token_told(service.corpus, gone)))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/tokens",
        handler=list_tokens,
        scope="admin",
        summary="Tokens, without their secrets",
        answer=TokensTold,
        tag="tokens",
    ),
    Operation(
        method="POST",
        path="/api/v1/tokens",
        handler=make_token,
        scope="admin",
        summary="Make a token; its secret is told this once",
        body=TokenWanted,
        answer=TokenMade,
        status=201,
        tag="tokens",
    ),
    Operation(
        method="DELETE",
        path="/api/v1/tokens/{token}",
        handler=revoke_token,
        scope="admin",
        summary="Revoke a token, by its id or its name",
        answer=TokenTold,
        tag="tokens",
    ),
)
