"""Prints P(Yes) as lm-evaluation-harness finds it: see `tests/peers/test_evaluators.py`."""

import json
import sys

import lm_eval
from lm_eval.tasks import TaskManager

tasks, checkpoint = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model="hf",
    model_args={
        "pretrained": checkpoint,
        "dtype": "float32",
        "add_bos_token": True,
        "device": "cpu",
        "max_length": 2048,
    },
    tasks=["wardgate"],
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
    log_samples=True,
    batch_size=1,
)
scores = {
    f"{name} {sample['doc']['id']}": sample["au_prc"]
    for name, samples in found["samples"].items()
    for sample in samples
}
metrics = {name: values["au_prc,none"] for name, values in found["results"].items()}
print(json.dumps({"scores": scores, "metrics": metrics}))
