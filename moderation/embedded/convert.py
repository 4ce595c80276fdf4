"""Writes a checkpoint directory from the GGUF of Gemma 3 270M; runs in a process of its own.

Reading the file takes 1.2 GB. The service must not keep that, so
`moderation.embedded.base` starts this module as a child and reads its progress from stdout:

    python -m moderation.embedded.convert base.gguf OUT

transformers reads GGUF too, with the same weights to the bit; it parses the file's 800,000 strings
three times and holds all weights in float32, which took 3.3 GB and twice the time.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_LAYER_PARTS = {
    "attn_k": "self_attn.k_proj",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "attn_output": "self_attn.o_proj",
    "attn_q": "self_attn.q_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_v": "self_attn.v_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_up": "mlp.up_proj",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Names of llama.cpp and of transformers."""
_ROWS_AT_ONCE = 16_384
"""Rows dequantised in one go: the embedding alone has 262,144."""


def write_checkpoint(gguf: Path, out: Path) -> None:
    """Writes `config.json`, `model.safetensors` (bfloat16) and the tokenizer's files."""
    _slice_plain_arrays()
    _write_weights(gguf, out)
    _say("converting the tokenizer")
    from transformers import AutoTokenizer, Gemma3TextConfig

    # The file is pinned by its checksum, so its configuration is known.
    config = Gemma3TextConfig(
        architectures=["Gemma3ForCausalLM"],
        dtype="bfloat16",
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        max_position_embeddings=32_768,
    )
    (out / "config.json").write_text(json.dumps(config.to_diff_dict(), indent=2, sort_keys=True))
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def _slice_plain_arrays() -> None:
    """Has the reader of GGUF, transformers' use of it too, cut its millions of pieces out of an
    array: out of numpy's class for mapped files, the whole conversion took 48 s of one core instead
    of 24. This process does nothing else with it."""
    import numpy as np
    from gguf import GGUFReader

    def plain(reader: GGUFReader, mapped: np.ndarray) -> None:
        reader.__dict__["data"] = np.asarray(mapped)

    GGUFReader.data = property(lambda reader: reader.__dict__["data"], plain)  # type: ignore[assignment]


def _write_weights(gguf: Path, out: Path) -> None:
    _say("reading the weights of Gemma 3 270M")
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file

    tensors = GGUFReader(gguf).tensors
    _say("dequantising to bfloat16")
    weights = {}
    for tensor in tensors:
        rows = tensor.data.reshape(-1, tensor.data.shape[-1])
        weight = torch.cat(
            [
                torch.tensor(dequantize(rows[first : first + _ROWS_AT_ONCE], tensor.tensor_type))
                .sub_(1.0 if "norm" in tensor.name else 0.0)  # llama.cpp stores 1 + weight
                .to(torch.bfloat16)
                for first in range(0, len(rows), _ROWS_AT_ONCE)
            ]
        )
        weights[_name(tensor.name)] = weight.reshape(*map(int, reversed(tensor.shape)))
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def _name(theirs: str) -> str:
    """`blk.3.ffn_up.weight` is `model.layers.3.mlp.up_proj.weight`."""
    match theirs.removesuffix(".weight").split("."):
        case ["token_embd"]:
            return "model.embed_tokens.weight"
        case ["output_norm"]:
            return "model.norm.weight"
        case ["blk", layer, part]:
            return f"model.layers.{layer}.{_LAYER_PARTS[part]}.weight"
        case _:
            raise ValueError(f"the GGUF has a tensor that Gemma 3 270M has not: {theirs}")


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
