"""data-designer as its users run it: a seed table and one text column; ``PROVIDER`` is openai or anthropic."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from peer_job import Job, quiet, run


def work(job: Job) -> Iterable[str | None]:
    import data_designer.config as dd
    import pandas as pd
    from data_designer.interface import DataDesigner

    logging.disable(logging.INFO)
    kind = os.environ.get("PROVIDER", "openai")
    endpoint = job.base_url if kind == "openai" else job.origin
    asking = dd.ChatCompletionInferenceParams(max_parallel_requests=16, timeout=60, max_tokens=64, temperature=0.7)
    if kind == "anthropic":
        asking = dd.ChatCompletionInferenceParams(max_parallel_requests=16, timeout=60, max_tokens=64)
    model = dd.ModelConfig(
        alias="asked", model=job.model, provider="service", skip_health_check=True, inference_parameters=asking
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"question": job.questions})))
    config.add_column(dd.LLMTextColumnConfig(name="answer", model_alias="asked", prompt="{{ question }}"))
    provider = dd.ModelProvider(name="service", endpoint=endpoint, provider_type=kind, api_key=job.key)
    designer = DataDesigner(artifact_path=str(job.folder / "designer"), model_providers=[provider])
    made = designer.create(config, num_records=job.rows, dataset_name="dataset").load_dataset()
    return list(made["answer"])


if __name__ == "__main__":
    quiet()
    run(work)
