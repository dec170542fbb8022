"""Loading, training and saving tokenizers; encoding single words and tokens the way they stand in running text."""
