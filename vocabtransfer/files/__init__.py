"""Reading and writing files: text of every packing, whole-file and staged writes, copies, packages, the cache."""
