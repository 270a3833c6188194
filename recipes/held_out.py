"""What a prepared corpus holds out, as a task: bits per byte of the first tokens of each document of its split `validation`.

    LYDITE_CORPUS=runs/data/english-gpt2 lydite evaluate MODEL --tasks recipes/held_out.py

All models of one table read the texts of one corpus, so that their numbers compare, whatever their own tokenizers are. A
passage is at most 200 tokens, which fit into the windows of all recipes.
"""

import os
from collections.abc import Iterator

from transformers import AutoTokenizer

from lydite.data.corpus import open_corpus
from lydite.errors import UserError
from lydite.tasks.heldout import heldout_task
from lydite.types import Sample, Task

TOKENS = 200


def task() -> Task:
    """The held-out passages of the corpus that LYDITE_CORPUS names."""
    folder = os.environ.get("LYDITE_CORPUS", "")
    if not folder:
        raise UserError("held_out.py: set LYDITE_CORPUS to a folder that `lydite prepare` made")
    corpus = open_corpus(folder)
    tokenizer = AutoTokenizer.from_pretrained(corpus.tokenizer)
    documents = corpus.split("validation")

    def samples(split: str) -> Iterator[Sample]:
        for number in range(len(documents)):
            # A cut may go through a character, whose bytes decode to the sign for what cannot be read.
            text = tokenizer.decode(documents[number][:TOKENS]).rstrip("\ufffd")
            if text.strip():
                yield Sample(id=str(number), input=text)

    return heldout_task("held_out", samples, fingerprint=f"{corpus.hash}:{TOKENS}", source="a corpus of lydite prepare")
