"""The engine: from requests to log-probabilities with as little work as possible.

It is a planner, not a faster copy of a model: shared token prefixes go through the network once, logits are made only
where a token is scored, and nothing is padded. `tokens` turns text into token ids, `plan` (pure Python and numpy) turns
ids into packed batches, `attention` lets transformers' own models run such a batch, `score` runs the plan.
"""
