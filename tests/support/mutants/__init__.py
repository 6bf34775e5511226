"""Mutants: small faults put into the product, to see whether a test notices.

    PYTHONPATH=tests python -m support.mutants --minutes 10

`operators.py` says what a fault is, `rooms.py` which files get them and which tests belong to
those, `clean.py` runs the tests once without a fault, `nursery.py` runs them with one, and
`equivalent.toml` lists the faults that change nothing, each with its reason.

Why not mutmut or cosmic-ray: mutmut 3.8 leaves module constants, fields of dataclasses, properties
and other decorated functions as they are; cosmic-ray 8 runs one command, and so all tests, for each
mutant.
"""
