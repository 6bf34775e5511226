"""Fuzzers: damaged, hostile and odd inputs by the thousand, and what may become of them.

    PYTHONPATH=tests python -m fuzz                     every campaign, in full: hours
    PYTHONPATH=tests python -m fuzz images --count 500  one of them, shortened

A campaign makes its own seeds, changes them at random, and knows what may happen: a refusal in one
line, or a result that is right. `docs/fuzzing.md` says what each campaign asks and holds the table
of counts. The suite runs some seconds of each (`test_campaigns.py`).
"""
