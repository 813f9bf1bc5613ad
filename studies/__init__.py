"""What can be learned from result directories: data frames, tables, figures. Reads files, trains nothing.

`study.py` is the door to it.
"""
