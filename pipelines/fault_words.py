"""Faults of a replay in sentences, for its page: what happened, to whom, from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from models.quantities import format_instant, format_share
from pipelines.config import microseconds
from pipelines.faults import AnyFault, DeadNodes, FlashCrowd, LyingMonitor, MassDeparture, NetworkCut, NoLog, SlowNodes


def fault_sentences(faults: Sequence[AnyFault]) -> tuple[str, ...]:
    """One sentence for each fault, by its start."""
    return tuple(_sentence(fault) for fault in sorted(faults, key=lambda fault: fault.start))


def _sentence(fault: AnyFault) -> str:
    match fault:
        case SlowNodes():
            what = f"{_share(fault.share)} of the devices send at {_share(fault.factor)} of their uplink"
        case DeadNodes():
            what = f"{_share(fault.share)} of the devices are off"
        case NetworkCut():
            network = f"network {fault.network}" if fault.network else "the largest network"
            what = f"All devices of {network} are off"
        case MassDeparture():
            what = f"{_share(fault.share)} of the devices that are up leave at once"
        case LyingMonitor():
            what = (
                f"Monitoring sees {_share(fault.up_share)} of the devices up and {_share(fault.down_share)} down, "
                "whatever they are"
            )
        case FlashCrowd():
            content = f"the content of rank {fault.rank}" if fault.rank else "a content that nobody had asked for"
            place = f" at {fault.location}" if fault.location else ""
            what = f"{fault.factor:g} times the requests of the day before come in addition for {content}{place}"
        case NoLog():
            what = "Requests happen that no model ever sees"
    return f"Fault, {format_instant(microseconds(fault.start))} to {format_instant(microseconds(_end(fault)))}: {what}."


def _end(fault: AnyFault) -> datetime:
    match fault:
        case NetworkCut() | FlashCrowd():
            return fault.start + timedelta(minutes=fault.minutes)
        case MassDeparture():
            return fault.start + timedelta(hours=fault.hours)
        case _:
            return fault.end


def _share(share: float) -> str:
    return format_share(share, 0)
