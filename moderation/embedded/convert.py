"""Writes a checkpoint directory from the GGUF of Gemma 3 270M; runs in a process of its own.

Dequantising takes about 3 GB for half a minute. The service must not keep that, so
`moderation.embedded.base` starts this module as a child and reads its progress from stdout:

    python -m moderation.embedded.convert base.gguf OUT
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def write_checkpoint(gguf: Path, out: Path) -> None:
    """Writes `config.json`, `model.safetensors` (bfloat16) and the tokenizer's files."""
    _say("reading the weights of Gemma 3 270M")
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _say("dequantising to bfloat16 (about half a minute, once)")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    config.update(architectures=["Gemma3ForCausalLM"], dtype="bfloat16")
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    _say("converting the tokenizer")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def main(write: Callable[[Path, Path], None] = write_checkpoint) -> None:
    """Converts `argv[1]` into the existing directory `argv[2]`; ends when the parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    write(Path(sys.argv[1]), Path(sys.argv[2]))


def _say(what: str) -> None:
    print(what, flush=True)


def _end_with_parent() -> None:
    """The parent holds the other end of stdin: it closes when the parent dies, even by SIGKILL."""
    # not through sys.stdin: its lock, held here, would be fatal when the interpreter ends first
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
