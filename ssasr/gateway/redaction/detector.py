"""All that detects, over the words of a turn."""

from collections.abc import Callable, Sequence

from attrs import frozen

from ssasr.gateway.redaction import addresses, credentials, dates, names, numbers, spoken
from ssasr.gateway.redaction.names import Entity
from ssasr.gateway.redaction.policies import THRESHOLD, Finding

Names = Callable[[Sequence[str]], list[Entity]]
"""A model of names: words, with their casing and punctuation, to what it found among them."""


@frozen
class Detector:
    """``find`` takes a few milliseconds of a processor, nearly all of them the model's."""

    names: Names

    def find(self, words: Sequence[str]) -> list[Finding]:
        """Everything that is sure enough, of all policies, in the order of the words."""
        atoms = spoken.read(words)
        found = [
            *numbers.numbers(atoms),
            *numbers.codes(atoms),
            *dates.dates(atoms),
            *dates.quantities(atoms),
            *addresses.email_addresses(atoms),
            *addresses.network_addresses(atoms),
            *addresses.street_addresses(atoms),
            *names.announced(atoms),
            *names.known_people(atoms),
            *names.firms(atoms),
            *names.spelled(atoms),
            *names.closed_classes(atoms),
            *credentials.credentials(atoms),
            *names.entities(self.names(words), words),
        ]
        sure = {finding for finding in found if finding.score >= THRESHOLD}
        return sorted(sure, key=lambda finding: (finding.first, finding.last, finding.policy))
