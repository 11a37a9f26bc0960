"""How many examples a property is tried with: a quarter of them in the quick run, all in the slow one.

`scripts/test` runs the properties again beside the tests marked slow, with `--hypothesis-profile=thorough`.
"""

from hypothesis import settings

EVERYTHING = 100  # hypothesis's own number, which each test's is a multiple of
settings.register_profile("quick", deadline=None, max_examples=EVERYTHING // 4)
settings.register_profile("thorough", deadline=None, max_examples=EVERYTHING)
settings.load_profile("quick")


def examples(number: int) -> settings:
    """Try `number` examples in the thorough run, and as much of that in any other as the profile says."""
    return settings(max_examples=max(1, number * settings().max_examples // EVERYTHING))
