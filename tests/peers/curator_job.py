"""bespokelabs-curator as its users run it: an LLM class over rows, the backend an OpenAI-compatible address."""

from __future__ import annotations

import os
from collections.abc import Iterable

from peer_job import Job, quiet, run


def work(job: Job) -> Iterable[str | None]:
    os.environ["CURATOR_CACHE_DIR"] = str(job.folder / "curator")
    from bespokelabs import curator

    class Asker(curator.LLM):  # type: ignore[misc] # it has no types
        def prompt(self, row: dict[str, str]) -> str:
            return row["question"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"question": row["question"], "answer": response}

    asker = Asker(
        model_name=job.model,
        backend="openai",
        backend_params={
            "base_url": job.base_url,
            "api_key": job.key,
            "max_concurrent_requests": 16,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
            "require_all_responses": False,
        },
        generation_params={"max_tokens": 64, "temperature": 0.7},
    )
    made = asker([{"question": question} for question in job.questions])
    return list(getattr(made, "dataset", made)["answer"])


if __name__ == "__main__":
    quiet()
    run(work)
