"""What is installed here beside what ssasr itself needs."""

from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def _needed(name, extras=frozenset()):
    """The distribution's requirements, and theirs, without any extra that nobody asked for."""
    found = {canonicalize_name(name)}
    try:
        lines = requires(name) or ()
    except PackageNotFoundError:  # of another system or Python
        return set()
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        wanted = ("", *extras)
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
            found |= _needed(requirement.name, requirement.extras)
    return found


def optional_packages():
    """Names of the importable packages that an installation without extras does not have."""
    needed = _needed("ssasr")
    return {
        package
        for package, distributions in packages_distributions().items()
        if package.isidentifier() and needed.isdisjoint(map(canonicalize_name, distributions))
    }
