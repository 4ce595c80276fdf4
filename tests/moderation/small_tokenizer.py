"""A small tokenizer of Gemma's kind: control tokens, byte fallback, runs of newlines and spaces.

Built with the `tokenizers` library from this project's own texts; nothing is downloaded.
"""

import json
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from moderation.templates import TEMPLATES
from policies import Surface, load_library

CONTROL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "[multimodal]",
    "<unused0>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
"""Each id is the place in this tuple."""
_NEWLINES = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")
_SPACES = ("▁", "▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁", "▁" * 16)


@cache
def small_tokenizer_json() -> str:
    """The text of its `tokenizer.json`, about 900 tokens."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\p{L}+|[^\p{L}]"), "isolated")
    trainer = BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=_alphabet())
    learner.train_from_iterator(_corpus(), trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [
        *CONTROL_TOKENS,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *_NEWLINES,
        *_SPACES,
        *learned["vocab"],
    ]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [
        *zip(_NEWLINES[:-1], ["\n"] * 3, strict=True),
        *zip(_SPACES[:-1], _SPACES[:-1], strict=True),
        *(tuple(merge) for merge in learned["merges"]),
    ]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    special = [token for token in CONTROL_TOKENS if token != "[multimodal]"]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(["[multimodal]", *_NEWLINES])  # not special, as in Gemma's own
    return tokenizer.to_str()


def _corpus() -> list[str]:
    library = load_library()
    texts = ["Yes No " * 200, "Yes\nNo\n" * 200]
    for template in TEMPLATES.values():
        for words in dict.fromkeys(template.surfaces.values()):  # two surfaces may share them
            texts += [words.before_content, words.before_policy, words.after_policy]
    for policy in library.policies.values():
        texts += [text for surface in Surface if (text := policy.definition_for(surface))]
    return texts


def _alphabet() -> list[str]:
    return [chr(code) for code in range(33, 127)]
