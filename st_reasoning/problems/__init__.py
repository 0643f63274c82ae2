"""reasoning-gym behind one door: family and seed in, problems with worked solutions out."""

from st_reasoning.problems.answers import AnswerQuad, answer_quads
from st_reasoning.problems.exchanged import exchanged_problems
from st_reasoning.problems.families import FAMILIES, family_instances
from st_reasoning.problems.gsm import (
    GSM_SUFFIX,
    ROUNDED_TEMPLATES,
    Problem,
    gsm_problems,
    gsm_templates,
    held_out_templates,
)
from st_reasoning.problems.logic import FormulaQuad, formula_quads

__all__ = [
    "FAMILIES",
    "GSM_SUFFIX",
    "ROUNDED_TEMPLATES",
    "AnswerQuad",
    "FormulaQuad",
    "Problem",
    "answer_quads",
    "exchanged_problems",
    "family_instances",
    "formula_quads",
    "gsm_problems",
    "gsm_templates",
    "held_out_templates",
]
