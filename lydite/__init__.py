"""Lydite judges language models. Only the environment is set here, so that `import lydite` stays light."""

import os

__version__ = "0.1.0"

# PyTorch and oneDNN keep code and buffers for each of the last 1,024 shapes of a matrix product: in bfloat16 1 to 8 MB each,
# gigabytes where every batch has other numbers of rows. The shapes of a model at work are some tens. Read at the first product.
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")
