"""The log lines that tie a session together: one when it begins, one when it ends. Refusals, which
may come by the hundred, are counted."""

from attrs import define, field

from ssasr.protocol.close_codes import END_CAUSES, EndCause
from ssasr.protocol.faults import ClientFault
from ssasr.session.inference import SessionTotals
from ssasr.session.session import SessionTerms
from ssasr.telemetry.bursts import Bursts
from ssasr.telemetry.logs import get_logger

log = get_logger(__name__)


@define(eq=False)
class SessionLog:
    """``peers``: with the clients' addresses."""

    peers: bool = True
    bursts: Bursts = field(factory=Bursts)

    def begun(self, terms: SessionTerms, key_id: str, peer: str) -> None:
        log.info(
            "session begun",
            session=terms.id,
            version=terms.model_version,
            key=key_id,
            **self._peer(peer),
        )
        if terms.parameters.ignored:
            log.info("without effect", session=terms.id, parameters=terms.parameters.ignored)

    def ended(
        self, terms: SessionTerms, key_id: str, peer: str, cause: EndCause, seconds: float,
        totals: SessionTotals,
    ) -> None:  # fmt: skip
        route = totals.route
        log.info(
            "session ended",
            session=terms.id,
            cause=cause.value,
            code=int(END_CAUSES[cause]),
            version=terms.model_version,
            engine=route.engine,
            address=route.address,
            failovers=route.moves,
            seconds=round(seconds, 2),
            audio_seconds=round(totals.audio_seconds, 2),
            turns=totals.turns,
            key=key_id,
            **self._peer(peer),
        )

    def refused(self, fault: ClientFault, peer: str) -> None:
        """Before it was a session."""
        cause = f"{fault.cause.value} {fault.limit.value}" if fault.limit else fault.cause.value
        self.bursts.warning("session refused", cause, code=int(fault.code), **self._peer(peer))

    def _peer(self, peer: str) -> dict[str, str]:
        return {"peer": peer} if self.peers else {}
