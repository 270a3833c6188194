"""BLiMP: 67 paradigms of English grammar, 1,000 minimal pairs each (Warstadt et al. 2020).

Sentences are scored whole from the beginning of a sequence, with no space before them (the paper's "simple LM
method"; lm-evaluation-harness puts a space there).
"""

from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import read_rows
from lydite.tasks.entry import Entry, group_of
from lydite.tasks.pairs import pairs_task
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Sample, Task

PARADIGMS = [
    "adjunct_island",
    "anaphor_gender_agreement",
    "anaphor_number_agreement",
    "animate_subject_passive",
    "animate_subject_trans",
    "causative",
    "complex_NP_island",
    "coordinate_structure_constraint_complex_left_branch",
    "coordinate_structure_constraint_object_extraction",
    "determiner_noun_agreement_1",
    "determiner_noun_agreement_2",
    "determiner_noun_agreement_irregular_1",
    "determiner_noun_agreement_irregular_2",
    "determiner_noun_agreement_with_adj_2",
    "determiner_noun_agreement_with_adj_irregular_1",
    "determiner_noun_agreement_with_adj_irregular_2",
    "determiner_noun_agreement_with_adjective_1",
    "distractor_agreement_relational_noun",
    "distractor_agreement_relative_clause",
    "drop_argument",
    "ellipsis_n_bar_1",
    "ellipsis_n_bar_2",
    "existential_there_object_raising",
    "existential_there_quantifiers_1",
    "existential_there_quantifiers_2",
    "existential_there_subject_raising",
    "expletive_it_object_raising",
    "inchoative",
    "intransitive",
    "irregular_past_participle_adjectives",
    "irregular_past_participle_verbs",
    "irregular_plural_subject_verb_agreement_1",
    "irregular_plural_subject_verb_agreement_2",
    "left_branch_island_echo_question",
    "left_branch_island_simple_question",
    "matrix_question_npi_licensor_present",
    "npi_present_1",
    "npi_present_2",
    "only_npi_licensor_present",
    "only_npi_scope",
    "passive_1",
    "passive_2",
    "principle_A_c_command",
    "principle_A_case_1",
    "principle_A_case_2",
    "principle_A_domain_1",
    "principle_A_domain_2",
    "principle_A_domain_3",
    "principle_A_reconstruction",
    "regular_plural_subject_verb_agreement_1",
    "regular_plural_subject_verb_agreement_2",
    "sentential_negation_npi_licensor_present",
    "sentential_negation_npi_scope",
    "sentential_subject_island",
    "superlative_quantifiers_1",
    "superlative_quantifiers_2",
    "tough_vs_raising_1",
    "tough_vs_raising_2",
    "transitive",
    "wh_island",
    "wh_questions_object_gap",
    "wh_questions_subject_gap",
    "wh_questions_subject_gap_long_distance",
    "wh_vs_that_no_gap",
    "wh_vs_that_no_gap_long_distance",
    "wh_vs_that_with_gap",
    "wh_vs_that_with_gap_long_distance",
]

SOURCE = "https://github.com/alexwarstadt/blimp"
LICENCE = "CC BY 4.0"


def entries() -> list[Entry]:
    """A task for each paradigm, and the group of all."""
    tasks = [
        Entry(
            name=f"blimp_{paradigm}",
            kind="minimal_pairs",
            source=SOURCE,
            licence=LICENCE,
            description=f"English minimal pairs: {paradigm.replace('_', ' ')}",
            load=partial(load, paradigm),
            listed=False,
            splits="test 1,000",
            chance="acc 0.5",
            defects=(
                "sentences come from templates and some are odd; people agree with 96.4% of the labels (paper, by majority); "
                "where the two differ in length or in rare words, that moves log p besides grammar"
            ),
        )
        for paradigm in PARADIGMS
    ]
    return [*tasks, group_of("blimp", "Minimal pairs of English grammar", tasks)]


def load(paradigm: str, data_dir: Path | None) -> Task:
    """The task of one paradigm."""
    source = Source(
        files={"test": (f"blimp/{paradigm}.jsonl", f"blimp/data/{paradigm}.jsonl")},
        read=read_rows,
        repository="nyu-mll/blimp",
        configuration=paradigm,
        splits={"test": "train"},
    )
    found = find(f"blimp_{paradigm}", source, data_dir)
    return pairs_task(
        found.name,
        samples_of(found, _sample),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _sample(id: str, row: dict[str, Any]) -> Sample:
    good, bad = row["sentence_good"], row["sentence_bad"]
    labels = {"field": row["field"], "phenomenon": row["linguistics_term"]}
    return Sample(id=id, input=good, choices=(good, bad), gold=(0,), metadata=labels)
