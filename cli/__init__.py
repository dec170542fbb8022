"""The command line of vocabtransfer: thin commands around the library."""
