"""What a backbone is given: everything that decides how a text reaches its weights, read without the weights."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_reasoning.backbone.convert import settle_tokenizer
from st_reasoning.backbone.prompts import PAPER_TEMPLATE, fit_template, format_instruction
from st_reasoning.backbone.sources import Source, adapter_base, has_tokenizer, loading, resolve
from st_reasoning.errors import InputError
from st_reasoning.files import read_json

# Both tokenizers must give each of these the same ids. Texts of the kinds that tokenizers are known to treat apart.
TEXTS = (
    "How many apples does she have?",
    "don't re-read the state-of-the-art; it's 'quoted', \"twice\"",
    "internationalization antidisestablishmentarianism",
    "0 7 42 365 1000 31415926 1,234,567.89 -3.5e-10 1/2 50%",
    "\\frac{1}{2}\\sum_{i=0}^{n-1} x_i^2 = \\sqrt{2} \\text{ where } $a \\neq b$",
    "def f(x):\n    return [i ** 2 for i in range(x)]  # squares\n\n\tif x != 0 && y >= 1 { z->w(); }",
    "<think>\nLet me see.\n</think>\n\n#### 5",
    "naïve café Ångström",
    "数学の問題を解く。多少个苹果",
    "Сколько яблок осталось?",
    "كم تفاحة لديها؟ כמה תפוחים?",
    "उसके पास कितने सेब हैं? แอปเปิ้ล 사과",
    "  two  spaces\ttab\n\n\nthree line breaks\r\n ",
    "\N{PARTY POPPER} \N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} \N{THUMBS UP SIGN}"
    "\N{EMOJI MODIFIER FITZPATRICK TYPE-5}",
    format_instruction(PAPER_TEMPLATE, "Given a math word problem, retrieve its worked solution") + "3 + 4 = ?",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """One backbone without its weights.

    ``tokenizer`` is as the conversion settles it; ``own_pad`` and ``padding_side`` are what it came with.
    """

    source: Source
    config: Any
    tokenizer: Any
    own_pad: str | None
    padding_side: str
    settled: dict[str, Any]
    boundary: str
    transformer: dict[str, Any]


def look(name: str, template: str) -> Inputs:
    """Load config and tokenizer of a backbone and settle them as the conversion does.

    Raises:
        InputError: if they cannot be loaded, or the conversion would refuse the tokenizer.
    """
    from transformers import AutoTokenizer

    weights, words = _places(resolve(name))
    config = _config(weights)
    with loading(words):
        tokenizer = AutoTokenizer.from_pretrained(words.location, config=config, **words.load_arguments())
    own_pad, side = tokenizer.pad_token, tokenizer.padding_side
    settled = settle_tokenizer(tokenizer, name)
    try:
        boundary = fit_template(tokenizer, template)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    written = Path(weights.location) / "sentence_bert_config.json"
    transformer = read_json(written) if weights.kind == "folder" and written.is_file() else {}
    return Inputs(weights, config, tokenizer, own_pad, str(side), settled, boundary, transformer)


def _config(source: Source) -> Any:
    from transformers import AutoConfig

    with loading(source):
        return AutoConfig.from_pretrained(source.location, **source.load_arguments())


def _places(source: Source) -> tuple[Source, Source]:
    """Return where config and tokenizer come from: for a LoRA adapter the base that it names, unless it has its own."""
    if source.kind != "adapter":
        return source, source
    base, own = _places(resolve(adapter_base(source)))
    return base, source if has_tokenizer(source) else own


def stored_dtype(backbone: str) -> str:
    """Return what the finding ``dtype`` says of one backbone; needs its config only."""
    source, _ = _places(resolve(backbone))
    return _gguf_types(source) if source.kind == "gguf" else _stated_dtype(_config(source))


# What is compared: hashable or JSON values, whole.


def special_tokens(arm: Inputs) -> dict[str, Any]:
    """Return token and id of each role but padding, and those of special tokens without a role under ``others``."""
    named = {role: str(token) for role, token in arm.tokenizer.special_tokens_map.items() if isinstance(token, str)}
    named.pop("pad_token", None)  # a finding of its own
    known = {*named.values(), str(arm.own_pad)}
    others = [str(token) for token in arm.tokenizer.all_special_tokens if token not in known]
    roles = {role.removesuffix("_token"): (token, _id(arm, token)) for role, token in sorted(named.items())}
    return {**roles, "others": [(token, _id(arm, token)) for token in others]} if others else roles


def pad_token(arm: Inputs) -> tuple[str, int]:
    """Return the token, and its id, that pads once the conversion has chosen one where the tokenizer has none."""
    return arm.settled["pad"], _id(arm, arm.settled["pad"])


def _id(arm: Inputs, token: str) -> int:
    return int(arm.tokenizer.convert_tokens_to_ids(token))


def token_ids(arm: Inputs) -> list[list[int]]:
    """Return the ids of :data:`TEXTS`, without what is added before and after: that is a finding of its own."""
    return [arm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def dtype(arm: Inputs) -> str:
    """Return what the weights were stored in; for GGUF the types of its tensors, the most frequent one first."""
    return _gguf_types(arm.source) if arm.source.kind == "gguf" else _stated_dtype(arm.config)


def _gguf_types(source: Source) -> str:
    from gguf import GGUFReader

    tensors = GGUFReader(str(Path(source.location) / str(source.gguf_file))).tensors
    counts = Counter(tensor.tensor_type.name for tensor in tensors)
    return "GGUF " + ", ".join(name for name, _ in counts.most_common())


def _stated_dtype(config: Any) -> str:
    stated = config.dtype if config.dtype is not None else config.get_text_config().dtype
    dtype = "not stated" if stated is None else str(stated).removeprefix("torch.")
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is None:
        return dtype
    settings = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    return f"{dtype}, {settings.get('quant_method', 'quantised')} {digest[:8]}"


def attention(arm: Inputs) -> dict[str, Any]:
    """Return what config, and for an embedder its own files, say of the architecture and its attention."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    text = arm.config.get_text_config()
    # GGUF names no class; transformers would load this one. Of a model that reads images, the language part is taken.
    own = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text.model_type, text.model_type)
    named = (arm.config.architectures or ()) if text is arm.config else ()
    layers = getattr(text, "layer_types", None)
    embedder = arm.transformer.get("model_args") or arm.transformer.get("model_kwargs") or {}
    preferred = embedder.get("attn_implementation") or getattr(arm.config, "_attn_implementation", None)
    return {
        "architecture": next(iter(named), own),
        "is_causal": getattr(text, "is_causal", True),
        "window": getattr(text, "sliding_window", None),
        "layers": list(layers) if layers else None,
        "implementation": preferred,
    }


def rope(arm: Inputs) -> dict[str, Any]:
    """Return every value that decides the rotary angles; empty without rotary positions.

    Read from the config as transformers completes it, so that a value left out equals its default. What layers of
    different kinds have for themselves is named ``KIND.VALUE``.
    """
    text = arm.config.get_text_config().to_dict()
    # transformers 5 gathers what has had names of its own; some configs keep these beside it.
    gathered = text.pop("rope_parameters", None) or {}
    beside = {name.removeprefix("rope_"): value for name, value in text.items() if "rope_" in name or "rotary_" in name}
    values = {**beside, **{name.removeprefix("rope_"): value for name, value in _flat(gathered).items()}}
    return {name: values[name] for name in sorted(values) if values[name] is not None}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of inner mappings beside the others, under ``OUTER.INNER``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {"": value}
        found.update({f"{name}.{part}" if part else name: each for part, each in inner.items()})
    return found


def depth_and_width(arm: Inputs) -> tuple[int, int]:
    """Return the number of layers and the hidden size."""
    text = arm.config.get_text_config()
    return int(text.num_hidden_layers), int(text.hidden_size)


def max_length(arm: Inputs) -> dict[str, Any]:
    """Return every limit on the length of a text, and the side on which a longer one is cut."""
    tokenizer = int(arm.tokenizer.model_max_length)
    return {
        "positions": getattr(arm.config.get_text_config(), "max_position_embeddings", None),
        # Without a limit of its own a tokenizer says 10^30.
        "tokenizer": tokenizer if tokenizer < 10**9 else None,
        "embedder": arm.transformer.get("max_seq_length"),
        "cut": arm.tokenizer.truncation_side,
    }
