"""A metric of your own: how much of an answer keeps to the length and the tone that a row asks for.

In a suite, with this folder on PYTHONPATH:

    tasks:
      - name: replies
        metric:
          name: python
          function: own_metric:brief_and_polite
          columns: [most_words]
          settings: {rude: [stupid, whatever]}

A package offers one by name through an entry point, and a suite then says `metric: brief_and_polite`:

    [project.entry-points."traitroute.metrics"]
    brief_and_polite = "own_metric:brief_and_polite"
"""

from collections.abc import Sequence

from traitroute.profiling import Example


def brief_and_polite(output: str, example: Example, rude: Sequence[str] = ()) -> float:
    """1 for a reply within the row's `most_words` and without a rude word; half of it for each of the two."""
    words = output.lower().split()
    if not words:
        return 0.0
    brief = len(words) <= example.columns.get("most_words", 40)
    polite = not any(word.strip(".,!?") in rude for word in words)
    return (brief + polite) / 2
