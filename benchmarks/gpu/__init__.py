"""The acceptance run on a GPU: every open question of docs/gpu.md, one command, one record.

`__main__.py` is the command, `items.py` the table of what runs, `runner.py` runs one item in a
process of its own. The other modules are items: each is a program that prints its results through
`emit.py`.
"""
