"""Tiny random checkpoints of guard models in the layout of the real ones.

Each has a chat template with the shape of its family's and a tokenizer that knows the words of its
answers, and puts nearly all of its probability on them, as a trained one does.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CONTEXT_TOKENS = 512

SPECIAL = {
    "llama-guard": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "qwen3guard": ("<|im_start|>", "<|im_end|>"),
    "wildguard": ("<s>", "</s>", "[INST]", "[/INST]", "<|user|>", "<|assistant|>"),
    "granite-guardian": ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    "granite-guardian-3.3": ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
}
"""Control tokens of each family."""

_LLAMA_GUARD = """\
{%- set who = 'User' if messages | length % 2 == 1 else 'Agent' -%}
{{- '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\n' -}}
{{- "Task: Check if there is unsafe content in '" + who + "' messages.\\n\\n" -}}
{%- for message in messages -%}
{{- ('User' if message['role'] == 'user' else 'Agent') + ': ' + SHOWN + '\\n\\n' -}}
{%- endfor -%}
{{- '<END CONVERSATION><|eot_id|><|start_header_id|>assistant<|end_header_id|>' -}}
"""
_GRANITE = """\
{{- "<|start_of_role|>system<|end_of_role|>Today's Date: " + strftime_now('%B %d, %Y') -}}
{{- '<|end_of_text|>\\n<|start_of_role|>user<|end_of_role|>' -}}
{%- for message in messages -%}
{{- message['role'] + ' Message: ' + message['content'] + '\\n' -}}
{%- endfor -%}
{{- 'Risk definition:\\n- ' + guardian_config['CRITERIA'] + '<|end_of_text|>\\n' -}}
{%- if add_generation_prompt -%}
{{- '<|start_of_role|>assistant<|end_of_role|>' -}}
{%- endif -%}
"""
TEMPLATES = {
    "llama-guard": _LLAMA_GUARD.replace("SHOWN", "message['content'] | trim"),
    "qwen3guard": """\
{{- '<|im_start|>user\\nIs the last message of this conversation safe?\\n\\n' -}}
{%- for message in messages -%}
{{- message['role'] | upper + ': ' + message['content'] + '\\n\\n' -}}
{%- endfor -%}
{{- '<END CONVERSATION><|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}
""",
    "wildguard": None,  # its prompt is the format's
    "granite-guardian": _GRANITE.replace("CRITERIA", "risk_definition"),
    "granite-guardian-3.3": _GRANITE.replace("CRITERIA", "custom_criteria"),
}
"""Chat templates by family."""
IN_PARTS = _LLAMA_GUARD.replace("SHOWN", "message['content'][0]['text'] | trim")
"""Llama Guard's where messages are lists of parts, as in the 1B and in 4."""

_CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    "llama-guard": (LlamaConfig, LlamaForCausalLM),
    "qwen3guard": (Qwen3Config, Qwen3ForCausalLM),
    "wildguard": (MistralConfig, MistralForCausalLM),
    "granite-guardian": (GraniteConfig, GraniteForCausalLM),
    "granite-guardian-3.3": (GraniteConfig, GraniteForCausalLM),
}
VERDICTS = {
    "llama-guard": ("safe", "unsafe"),
    "qwen3guard": (" Safe", " Unsafe", " Controversial"),
    "wildguard": (" yes", " no"),
    "granite-guardian": ("Yes", "No"),
    "granite-guardian-3.3": (" yes", " no"),
}
"""What each family decides first."""
_CATEGORIES = (
    "Violent, Non-violent Illegal Acts, Sexual Content or Sexual Acts, PII, Suicide & Self-Harm,"
    " Unethical Acts, Politically Sensitive Topics, Copyright Violation, Jailbreak"
)
_CORPUS = [
    f"{text} " * 50
    for text in (
        "\n\nsafe\n\nunsafe\nS" + "\nS".join(map(str, range(1, 15))),
        "Safety: Safe\nSafety: Unsafe\nSafety: Controversial\nCategories: " + _CATEGORIES,
        "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
        "Yes No <score> yes </score> <score> no </score>",
    )
]
_WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
"""How Llama 3 and Qwen split texts."""


@cache
def tokenizer_of(family: str, *, merges: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE that learnt the answers; without merges, each byte is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_WORDS, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=600 if merges else 256, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens(list(SPECIAL[family]))
    tokenizer.add_tokens(["<think>", "</think>"])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        chat_template=TEMPLATES[family],
        eos_token=SPECIAL[family][-1],
    )


def write_guard(folder: Path, family: str, *, answers: bool = True) -> Path:
    """A checkpoint of `save_pretrained`; without answers, one that never answers as its family."""
    tokenizer = tokenizer_of(family)
    config_class, model_class = _CLASSES[family]
    config = config_class(
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        pad_token_id=None,
    )
    model = model_class(config)
    ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in VERDICTS[family]]
    _randomise(model, ids, answers=answers)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _randomise(model: Any, verdicts: list[int], *, answers: bool) -> None:
    """Random weights, but for one number of the hidden state that no layer changes: it makes the
    verdicts likely wherever they stand, or unlikely."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            spread = 1.5 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    model.get_input_embeddings().weight[:, 0] = 8.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    head = model.get_output_embeddings().weight
    head *= 0.6  # so that no verdict has nearly all
    head[:, 0] = 0.0
    head[verdicts, 0] = 6.0 if answers else -6.0
    head[verdicts[0], 0] += 0.5  # mostly safe, after which nothing else need be likely
