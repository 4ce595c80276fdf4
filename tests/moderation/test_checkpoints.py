"""A checkpoint whose scores would mean nothing is refused, and the message says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM, Gemma3ImageProcessorPil

from moderation.checkpoints import Classifier, load_checkpoint
from moderation.errors import ModelRefused, ModelUnavailable
from moderation.prompts import JudgePrompt
from tests.moderation.asking import ask
from tests.moderation.checkpoints_on_disk import edit_config, edit_weights
from tests.moderation.small_tokenizer import small_tokenizer_json

PROMPT = JudgePrompt((2, 30, 31, 32), ((40, 41), (42, 43, 44)))
HEADS = {"gemma3": "lm_head.weight", "shieldgemma2": "model.language_model.lm_head.weight"}
EMBEDDINGS = {
    "gemma3": "model.embed_tokens.weight",
    "shieldgemma2": "model.language_model.model.embed_tokens.weight",
}

Copy = Callable[[str], Path]


@pytest.fixture
def copy(checkpoint_dirs: dict[str, Path], tmp_path: Path) -> Copy:
    """Copies a checkpoint, so that a test may break it."""

    def copy_of(name: str) -> Path:
        return Path(shutil.copytree(checkpoint_dirs[name], tmp_path / name))

    return copy_of


def load(folder: Path | str, **options: Any) -> Classifier:
    return load_checkpoint(folder, dtype=torch.float32, **options)


@pytest.mark.parametrize(
    ("name", "template", "has_images"),
    [
        ("gemma2", "shieldgemma1", False),
        ("gemma3", "shieldgemma1", False),
        ("gemma3_with_images", "shieldgemma2", True),
        ("shieldgemma2", "shieldgemma2", True),
    ],
)
def test_each_architecture_loads_with_the_template_that_it_was_trained_with(
    tiny: dict[str, Classifier], name: str, template: str, has_images: bool
) -> None:
    classifier = tiny[name]
    assert classifier.info.template == template
    assert classifier.info.dtype == "float32"
    assert (classifier.to_pixels is not None) == has_images
    assert classifier.builder.num_image_tokens == (4 if has_images else 0)
    assert "output head tied to the embedding" in classifier.checks


def test_a_checkpoint_loads_in_bfloat16(checkpoint_dirs: dict[str, Path]) -> None:
    classifier = load_checkpoint(checkpoint_dirs["gemma3"], dtype=torch.bfloat16)
    assert classifier.info.dtype == "bfloat16"
    assert all(0 <= score <= 1 for score in ask(classifier.engine, PROMPT))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_another_dtype_is_refused(checkpoint_dirs: dict[str, Path], dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelRefused, match=f"cannot score in {name}; expected float32 or bfloat16"):
        load_checkpoint(checkpoint_dirs["gemma3"], dtype=dtype)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_differs_from_the_embedding_is_refused(copy: Copy, name: str) -> None:
    folder = copy(name)

    def add_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**weights, HEADS[name]: weights[EMBEDDINGS[name]] + 0.01}

    edit_weights(folder, add_head)
    with pytest.raises(ModelRefused, match="not tied to the embedding"):
        load(folder)


def test_an_untied_head_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ModelRefused, match=r"lacks weights: lm_head\.weight"):
        load(folder)
    edit_weights(folder, lambda weights: {**weights, HEADS["gemma3"]: torch.randn(878, 48)})
    with pytest.raises(ModelRefused, match="not tied to the embedding"):
        load(folder)


@pytest.mark.parametrize("name", HEADS)
def test_a_stored_head_equal_to_the_embedding_is_accepted(
    copy: Copy, tiny: dict[str, Classifier], name: str
) -> None:
    folder = copy(name)

    def add_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**weights, HEADS[name]: weights[EMBEDDINGS[name]].clone()}

    edit_weights(folder, add_head)
    assert ask(load(folder).engine, PROMPT) == ask(tiny[name].engine, PROMPT)


def test_missing_weights_are_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    lost = "model.layers.3.mlp.up_proj.weight"
    edit_weights(folder, lambda w: {name: t for name, t in w.items() if name != lost})
    with pytest.raises(ModelRefused, match=rf"lacks weights: {lost}"):
        load(folder)


def test_a_missing_vision_tower_is_refused(copy: Copy) -> None:
    folder = copy("gemma3_with_images")
    edit_weights(folder, lambda w: {name: t for name, t in w.items() if "vision" not in name})
    with pytest.raises(ModelRefused, match=r"lacks weights: .*vision_tower.* and more"):
        load(folder)


def test_unknown_weights_are_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    edit_weights(folder, lambda w: {**w, "model.layers.9.extra.weight": torch.ones(3)})
    with pytest.raises(ModelRefused, match=r"does not know: model\.layers\.9\.extra\.weight"):
        load(folder)


def test_weights_of_another_shape_are_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(folder, lambda w: {**w, name: torch.ones(65, 48)})
    with pytest.raises(ModelRefused, match=rf"another shape: {name}"):
        load(folder)


def test_a_weight_that_is_nan_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    nan = torch.full((48,), torch.nan)
    edit_weights(folder, lambda w: {**w, "model.norm.weight": nan})
    with pytest.raises(ModelRefused, match="a probe gave no score"):
        load(folder)


def test_a_file_cut_short_is_unavailable(copy: Copy) -> None:
    folder = copy("gemma3")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelUnavailable, match="cannot load the weights"):
        load(folder)


def test_pickled_weights_are_never_read(copy: Copy) -> None:
    folder = copy("gemma3")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="cannot load the weights"):
        load(folder)


def test_another_architecture_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    edit_config(folder, architectures=["Gemma3ForSequenceClassification"])
    with pytest.raises(ModelRefused, match="is a Gemma3ForSequenceClassification; expected one of"):
        load(folder)


def test_another_model_type_is_unavailable(copy: Copy) -> None:
    folder = copy("gemma3")
    edit_config(folder, model_type="no_such_model")
    with pytest.raises(ModelUnavailable, match="cannot read a model configuration"):
        load(folder)


@pytest.mark.parametrize(("key", "word"), [("yes_token_index", "Yes"), ("no_token_index", "No")])
def test_answer_ids_that_are_not_the_tokenizers_are_refused(
    copy: Copy, key: str, word: str
) -> None:
    folder = copy("shieldgemma2")
    edit_config(folder, **{key: 100})
    with pytest.raises(ModelRefused, match=rf"says that '{word}' is token 100, the tokenizer \d+"):
        load(folder)


def test_a_tokenizer_that_splits_yes_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    spec = json.loads(small_tokenizer_json())
    merges = spec["model"]["merges"]
    spec["model"]["merges"] = [pair for pair in merges if "".join(pair) != "Yes"]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelRefused, match="spells 'Yes' as 2 tokens, expected one"):
        load(folder)


def test_a_tokenizer_of_a_larger_model_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    spec = json.loads(small_tokenizer_json())
    size = len(spec["model"]["vocab"])
    spec["model"]["vocab"] |= {f"<more{number}>": size + number for number in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelRefused, match=rf"has {size + 50} tokens, the embedding \d+ rows"):
        load(folder)


def test_a_missing_tokenizer_is_unavailable(copy: Copy) -> None:
    folder = copy("gemma3")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"cannot read tokenizer\.json"):
        load(folder)


def test_image_tokens_that_are_not_the_tokenizers_are_refused(copy: Copy) -> None:
    folder = copy("shieldgemma2")
    config = json.loads((folder / "config.json").read_text())
    boi, eoi = config["boi_token_index"], config["eoi_token_index"]
    edit_config(folder, boi_token_index=eoi, eoi_token_index=boi)
    with pytest.raises(ModelRefused, match="the configuration has the image tokens"):
        load(folder)


def test_an_image_processor_of_another_size_is_refused(copy: Copy) -> None:
    folder = copy("shieldgemma2")
    Gemma3ImageProcessorPil(size={"height": 896, "width": 896}).save_pretrained(folder)
    with pytest.raises(ModelRefused, match="makes 896x896 pixels, the vision tower reads 56x56"):
        load(folder)


def test_a_missing_image_processor_is_unavailable(copy: Copy) -> None:
    folder = copy("shieldgemma2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="cannot read the image processor"):
        load(folder)


def test_what_is_no_checkpoint_directory_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"is no directory; expected a checkpoint directory"):
        load(tmp_path / "missing")
    file = tmp_path / "file"
    file.write_text("{}")
    with pytest.raises(ModelUnavailable, match="is no directory"):
        load(file)
    with pytest.raises(ModelUnavailable, match=r"a directory without config\.json"):
        load(tmp_path)
    with pytest.raises(ModelUnavailable, match="cannot read a model configuration"):
        load("not a hub id!")


def test_an_unknown_template_is_refused(checkpoint_dirs: dict[str, Path]) -> None:
    with pytest.raises(ModelRefused, match="unknown template 'mine'; known: shieldgemma1"):
        load(checkpoint_dirs["gemma3"], template="mine")


def test_a_template_for_images_needs_a_model_with_images(checkpoint_dirs: dict[str, Path]) -> None:
    with pytest.raises(ModelRefused, match="shows images, but Gemma3ForCausalLM has no vision"):
        load(checkpoint_dirs["gemma3"], template="shieldgemma2")


def test_the_revision_changes_with_the_weights(copy: Copy, tiny: dict[str, Classifier]) -> None:
    folder = copy("gemma3")
    assert load(folder).info.revision == tiny["gemma3"].info.revision
    name = "model.layers.6.mlp.up_proj.weight"
    edit_weights(folder, lambda w: {**w, name: w[name] * 1.001})
    assert load(folder).info.revision != tiny["gemma3"].info.revision


@pytest.fixture
def adapter(checkpoint_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A random LoRA adapter for the tiny Gemma 3."""
    base = Gemma3ForCausalLM.from_pretrained(checkpoint_dirs["gemma3"])
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted: Any = get_peft_model(base, config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


@pytest.mark.parametrize("name", ["gemma3", "shieldgemma2"])
def test_the_revision_changes_with_any_one_tensor(copy: Copy, name: str) -> None:
    folder = copy(name)
    before = load(folder).info.revision
    weights = load_file(folder / "model.safetensors")
    for key in list(weights)[:: len(weights) // 8]:
        changed = {**weights, key: weights[key] * 1.01 + 1e-3}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        assert load(folder).info.revision != before, key
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).info.revision == before


def test_the_revision_changes_with_the_tokenizer(copy: Copy) -> None:
    folder = copy("gemma3")
    before = load(folder).info.revision
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    assert load(folder).info.revision != before


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"hidden_size": "abc"},
        {"num_hidden_layers": -1},
        {"num_attention_heads": 3},
        {"layer_types": ["other"]},
    ],
)
def test_a_configuration_that_cannot_be_used_is_an_error_of_ours(
    copy: Copy, change: dict[str, Any]
) -> None:
    folder = copy("gemma3")
    edit_config(folder, **change)
    with pytest.raises((ModelRefused, ModelUnavailable), match=r"checkpoint|configuration|weights"):
        load(folder)


def test_a_context_without_room_is_refused(copy: Copy) -> None:
    folder = copy("gemma3")
    edit_config(folder, max_position_embeddings=100)
    with pytest.raises(ModelRefused, match="context has 100 tokens; at least 256"):
        load(folder)


def test_an_adapter_is_merged_and_named(
    checkpoint_dirs: dict[str, Path], tiny: dict[str, Classifier], adapter: Path
) -> None:
    classifier = load(checkpoint_dirs["gemma3"], adapter=adapter)
    assert ask(classifier.engine, PROMPT) != pytest.approx(ask(tiny["gemma3"].engine, PROMPT))
    assert classifier.info.revision.startswith(tiny["gemma3"].info.revision + "+adapter-")
    assert not any("lora" in name for name, _ in classifier.model.named_parameters())


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_an_adapter_that_does_not_fit_is_refused(
    checkpoint_dirs: dict[str, Path], adapter: Path, change: str
) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    tensor = weights.pop(name)
    if change == "unknown":
        weights |= {name: tensor, name.replace("layers.0", "layers.70"): tensor.clone()}
    save_file(weights, path)
    with pytest.raises(ModelRefused, match="1 of its weights are missing or unknown"):
        load(checkpoint_dirs["gemma3"], adapter=adapter)


def test_a_missing_or_broken_adapter_is_unavailable(
    checkpoint_dirs: dict[str, Path], adapter: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="cannot load the adapter"):
        load(checkpoint_dirs["gemma3"], adapter=adapter / "missing")
    (adapter / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelUnavailable, match="cannot load the adapter"):
        load(checkpoint_dirs["gemma3"], adapter=adapter)
