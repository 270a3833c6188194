"""From text to a corpus folder: `lydite prepare`. Beside it `lydite.data.corpus`, which reads what comes out.

    run.py       the four steps, their order, and how an interrupted one goes on
      1 read     sources.py, tokens.py (datatrove's) -> chunks -> clean.py in worker processes (normal form, rules.py,
                 languages.py, overlap.py, hashes of duplicates.py) -> buckets.py: texts on disk, by the hash of their content
      2 resolve  resolve.py: duplicates, sizes of the parts of the mixture, who is repeated, which split; rows only, no text
      3 encode   encode.py: bucket by bucket, in the order of the hashes, tokens and sentences.py
      4 merge    merge.py: the pieces one after another into shards; corpus.json last

Contract: the tokens depend on the input, the settings and the tokenizer alone, not on the number of processes, the number
of buckets or the moment of a crash. Memory depends on the number of buckets and processes, not on the size of the corpus.
"""

from lydite.data.prepare.overlap import BannedText
from lydite.data.prepare.recipe import Recipe, Settings, Source, read_recipe
from lydite.data.prepare.run import prepare

__all__ = ["BannedText", "Recipe", "Settings", "Source", "prepare", "read_recipe"]
