"""The control: check, then spend, as gateways do it. It is seen to pass its cap."""

from __future__ import annotations

import asyncio

import aiohttp

ASKING = 48
MAX_TOKENS = 24


async def check_then_spend(base_url: str, cap: int, most: int) -> int:
    """Ask until its own books say that the cap is reached; gives back what they say."""
    spent, numbers = 0, iter(range(most))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.5)) as session:

        async def ask(number: int) -> int:
            said = [{"role": "user", "content": f"Say something about control {number:05}."}]
            body = {"model": "m", "messages": said, "max_tokens": MAX_TOKENS}
            try:
                async with session.post(f"{base_url}/chat/completions", json=body) as reply:
                    usage = (await reply.json())["usage"]
                    return int(usage["prompt_tokens"]) + 4 * int(usage["completion_tokens"])
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
                return 0  # an error, so it cost nothing: that is what it believes

        async def worker() -> None:
            nonlocal spent
            for number in numbers:
                if spent >= cap:
                    return
                cost = await ask(number)
                spent += cost

        await asyncio.gather(*(worker() for _ in range(ASKING)))
    return spent
