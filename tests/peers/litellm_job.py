"""litellm's SDK as its users call it: whole and streamed, in OpenAI's format and in Anthropic's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from peer_job import Job, quiet, run

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


async def _asked(job: Job, at: int, question: str) -> Any:
    import litellm

    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 64,
        "api_key": job.key,
        "num_retries": 0,
    }
    way = at % 5
    if way == 4:
        answer = await litellm.acompletion(model=f"anthropic/{job.model}", api_base=job.origin, **asked)
        return answer.choices[0].message.content
    asked |= {"model": f"openai/{job.model}", "api_base": job.base_url}
    if way == 1:
        pieces = [piece async for piece in await litellm.acompletion(stream=True, **asked)]
        return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    if way == 2:
        answer = await litellm.acompletion(logprobs=True, top_logprobs=3, **asked)
        assert answer.choices[0].logprobs is not None
        return answer.choices[0].message.content
    if way == 3:
        answer = await litellm.acompletion(tools=[TOOL], tool_choice="required", **asked)
        return str(answer.choices[0].message.tool_calls or answer.choices[0].message.content)
    return (await litellm.acompletion(**asked)).choices[0].message.content


async def _all(job: Job) -> list[str | None]:
    return await asyncio.gather(*(_asked(job, at, question) for at, question in enumerate(job.questions)))


def work(job: Job) -> Iterable[str | None]:
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    return asyncio.run(_all(job))


if __name__ == "__main__":
    quiet()
    run(work)
