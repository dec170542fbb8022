"""One file a source. `vocabtransfer.corpora.catalogue` imports them all, which registers them."""
