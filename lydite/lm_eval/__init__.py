"""The bridge to lm-evaluation-harness: our model in their tool (`model`), their tasks on our path (`tasks`).

    lydite-lm-eval --model lydite --model_args pretrained=DIR --tasks NAME      their command line, our engine
    lydite evaluate MODEL --tasks lm_eval:NAME --include-path DIR               our command line, their tasks

lm-evaluation-harness is the extra `lydite[lm-eval]` and is imported only by the modules of this room that need it, so
this module imports nothing. Both ways know two sets of rules for tokens: ours, and theirs (`parity=true` there,
`--set rules=lm_eval` here), which repeat their numbers with all their quirks (engine/parity.py). Which one was used
stands in the signature and in the results file.
"""

PREFIX = "lm_eval:"
"""What the names of their tasks begin with among ours."""
