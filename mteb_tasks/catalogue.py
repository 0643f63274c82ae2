"""Which tasks there are."""

from __future__ import annotations

from typing import Any

from mteb_tasks.analysis.hrsa_chain_of_thought import HRSAChainOfThought
from mteb_tasks.analysis.hrsa_general import HRSAGeneral
from mteb_tasks.classification.math500 import MATH500SubjectClassification
from mteb_tasks.classification.mmlu_pro import MMLUProCategoryClassification
from mteb_tasks.classification.reasoning_family import ReasoningGymFamilyClassification
from mteb_tasks.clustering.gsm_symbolic_calculation import GSMSymbolicCalculationClustering
from mteb_tasks.clustering.gsm_symbolic_template import GSMSymbolicTemplateClustering
from mteb_tasks.clustering.math500 import MATH500SubjectClustering
from mteb_tasks.clustering.reasoning_family import ReasoningGymFamilyClustering
from mteb_tasks.pair_classification.gsm_symbolic_cross_template import GSMSymbolicCrossTemplateAnswerPC
from mteb_tasks.pair_classification.gsm_symbolic_same_template import GSMSymbolicSameTemplateAnswerPC
from mteb_tasks.pair_classification.propositional_equivalence import PropositionalEquivalencePC
from mteb_tasks.regression.gsm_symbolic_steps import GSMSymbolicStepsRegression
from mteb_tasks.retrieval.gsm8k import GSM8KSolutionRetrieval
from mteb_tasks.retrieval.gsm_symbolic import GSMSymbolicSolutionRetrieval
from mteb_tasks.retrieval.gsm_symbolic_exchanged import GSMSymbolicExchangedRetrieval
from mteb_tasks.retrieval.math500 import MATH500SolutionRetrieval
from mteb_tasks.retrieval.mmlu_pro import MMLUProAnswerRetrieval
from mteb_tasks.retrieval.numinamath import NuminaMathK12SolutionRetrieval

# Drawn with reasoning-gym and frozen; the order is that of the benchmark's table.
GENERATED: tuple[type[Any], ...] = (
    GSMSymbolicSolutionRetrieval,
    GSMSymbolicExchangedRetrieval,
    GSMSymbolicSameTemplateAnswerPC,
    GSMSymbolicCrossTemplateAnswerPC,
    PropositionalEquivalencePC,
    GSMSymbolicTemplateClustering,
    GSMSymbolicCalculationClustering,
    ReasoningGymFamilyClustering,
    ReasoningGymFamilyClassification,
    GSMSymbolicStepsRegression,
)

# Rows of data sets on the Hugging Face hub, at pinned revisions.
HUB: tuple[type[Any], ...] = (
    GSM8KSolutionRetrieval,
    MATH500SolutionRetrieval,
    NuminaMathK12SolutionRetrieval,
    MMLUProAnswerRetrieval,
    MATH500SubjectClassification,
    MMLUProCategoryClassification,
    MATH500SubjectClustering,
)

# Run like tasks where they are named; no measure of quality, and in no benchmark.
ANALYSES: tuple[type[Any], ...] = (HRSAChainOfThought, HRSAGeneral)
