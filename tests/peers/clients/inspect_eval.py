"""Prints what inspect_ai makes of a moderator: see `tests/peers/test_evaluators.py`."""

import json
import sys

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from evals.interop.inspect_scorer import policy_scorer
from policies import Surface, load_library
from tests.evals.saying import saying_moderator

library = load_library()
moderator, policy_set = saying_moderator(library), library.policy_set("default")
outputs = [
    # with its usage, since inspect would download a tokenizer to count it
    ModelOutput(model="m", usage=ModelUsage(), choices=ModelOutput.from_content("m", text).choices)
    for text in ("says 0.9", "says 0.1", "says nothing", "")
]
task = Task(
    dataset=[Sample(input="says 0.7") for _ in outputs],
    scorer=[
        policy_scorer(moderator, policy_set, each) for each in (Surface.RESPONSE, Surface.PROMPT)
    ],
)
[log] = eval(
    task,
    model=get_model("mockllm/model", custom_outputs=outputs),
    log_dir=sys.argv[1],
    display="none",
    max_samples=1,
)
found = {
    f"{each.scorer} {each.name}": [
        each.metrics["mean"].value,
        each.scored_samples,
        each.unscored_samples,
    ]
    for each in log.results.scores
}
reasons = [sample.scores["wardgate_response"].reason for sample in log.samples]
print(
    json.dumps(
        {
            "status": log.status,
            "found": found,
            "reasons": reasons,
            "params": log.results.scores[0].params,
        }
    )
)
