"""Stand-ins: complete small checkpoints of every model family, with the real tokenizer classes.

A stand-in has the files, the special tokens, the id layout and the configuration of the published checkpoint, and
random weights. ``tests.standins.build`` writes them; nothing heavy is imported here, so that tests without a model
start at once.
"""
