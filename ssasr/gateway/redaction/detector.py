"""All rules and the model of names, applied to the words of a turn.

A rule is a generator from atoms (``spoken.Atom``) to findings. Within the rules, positions are
indices of atoms, ranges include both ends, and -1 stands for "none"; a finding counts words."""

from collections.abc import Sequence

from attrs import frozen

from ssasr.gateway.redaction import addresses, credentials, dates, names, numbers, spoken
from ssasr.gateway.redaction.names import NameModel
from ssasr.gateway.redaction.policies import POLICIES, THRESHOLD, Finding


@frozen
class Detector:
    """``find`` takes a few milliseconds of a processor, nearly all of them the model's.

    ``names``: None: there is no model of names."""

    names: NameModel | None

    def find(self, words: Sequence[str], asked: frozenset[str] = POLICIES) -> list[Finding]:
        """Everything that is sure enough, in the order of the words; of policies that are not
        ``asked`` for, perhaps not all."""
        atoms = spoken.read(words)
        named = self.names(words) if self.names and self.names.policies & asked else []
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
            *names.entities(named, words),
        ]
        sure = {finding for finding in found if finding.score >= THRESHOLD}
        return sorted(sure, key=lambda finding: (finding.first, finding.last, finding.policy))
