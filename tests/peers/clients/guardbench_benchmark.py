"""Prints what GuardBench makes of a moderator: see `tests/peers/test_evaluators.py`."""

import json
import sys
from pathlib import Path

from guardbench import CustomDataset, benchmark
from guardbench.benchmark import effectiveness

from evals.interop.guardbench import moderate_by
from policies import load_library
from tests.evals.saying import saying_moderator

folder = Path(sys.argv[1])
library = load_library()
moderate = moderate_by(saying_moderator(library), library.policy_set("default"))
data = folder / "data.jsonl"


def measure(*texts):
    lines = [
        {
            "id": text,
            "label": text > "says 0.5",
            "conversation": [{"role": "user", "content": text}],
        }
        for text in texts
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # GuardBench's own way to a data set that is none of its list
    effectiveness.load_dataset = lambda name: CustomDataset(name).load_data(data)
    benchmark(
        moderate=moderate,
        model_name="wardgate",
        out_dir=str(folder / "out"),
        batch_size=2,
        datasets=["mine"],
    )
    return json.loads((folder / "out" / "mine" / "wardgate.json").read_text())


scored = measure("says 0.9", "says 0.1", "says 0.8")
try:
    measure("says 0.9", "says nothing")
    refused = None
except Exception as exc:
    refused = type(exc).__name__
print(json.dumps({"scored": scored, "refused": refused}))
