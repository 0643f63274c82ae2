"""From a causal language model, whatever it comes as, to a verified embedder."""

from st_reasoning.backbone.audit import Audit, Finding, audit, refuse_unequal
from st_reasoning.backbone.convert import conversion_of, convert, open_model
from st_reasoning.backbone.prompts import fit_template, format_instruction
from st_reasoning.backbone.saving import RECORD, read_record, save_embedder
from st_reasoning.backbone.sources import Source, load_causal_lm, resolve, save_causal_lm

__all__ = [
    "RECORD",
    "Audit",
    "Finding",
    "Source",
    "audit",
    "conversion_of",
    "convert",
    "fit_template",
    "format_instruction",
    "load_causal_lm",
    "open_model",
    "read_record",
    "refuse_unequal",
    "resolve",
    "save_causal_lm",
    "save_embedder",
]
