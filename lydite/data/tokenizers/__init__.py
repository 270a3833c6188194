"""Tokenizers: trained through the `tokenizers` library, saved for transformers, compared with one another."""

from lydite.data.tokenizers.families import FAMILIES
from lydite.data.tokenizers.settings import TokenizerSettings
from lydite.data.tokenizers.train import TrainedTokenizer, save_tokenizer, train_tokenizer

__all__ = ["FAMILIES", "TokenizerSettings", "TrainedTokenizer", "save_tokenizer", "train_tokenizer"]
