"""What a device added to an audit, in the words that all reports share: drift, speed, memory, shadows."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprivacy.report.words import clean, decimal, percent, size
from edgeprivacy.results import ArtifactResult, Audit, Drift


@dataclass(frozen=True)
class DeviceRow:
    """One file on one device as tables show it; texts, a dash where something was not measured.

    Attributes:
        drift: One text a runner that it was compared with.
        attack: What the worst attack finds here, and with the host's answers.
    """

    artifact: ArtifactResult
    device: str
    drift: tuple[str, ...]
    attack: str
    latency: str
    memory: str
    shadows: str


def device_rows(audit: Audit) -> list[DeviceRow]:
    """All files that were run elsewhere than on the host; empty where none was."""
    return [
        DeviceRow(
            artifact,
            device_name(artifact),
            tuple(map(drift_text, artifact.drift)),
            next((text for entry in artifact.drift if (text := attack_text(entry))), "–"),
            latency_text(artifact),
            memory_text(artifact),
            clean(artifact.shadow_device or "none made"),
        )
        for artifact in audit.artifacts
        if artifact.device != "host"
    ]


def device_name(artifact: ArtifactResult) -> str:
    """ "adb:SERIAL (Pixel 8, Android 14, arm64-v8a)"."""
    run = artifact.run
    said = [run.get("model_name") or run.get("soc"), run.get("abi")]
    if run.get("android"):
        said.insert(1, f"Android {run['android']}")
    about = ", ".join(clean(word) for word in said if word)
    return clean(artifact.device) + (f" ({about})" if about else "")


def drift_text(drift: Drift) -> str:
    """ "host: equal to the last bit", or how far apart and how often it matters."""
    if drift.not_run is not None:
        return f"{clean(drift.versus)}: not compared, {clean(drift.not_run)}"
    if drift.max_abs == 0 and not drift.max_lsb:
        return f"{clean(drift.versus)}: equal to the last bit, {drift.rows:,} rows"
    steps = "" if drift.max_lsb is None else f", at most {drift.max_lsb} steps of the grid"
    flips = "no top class flips" if drift.top1_flips == 0 else f"{drift.top1_flips:,} top classes flip"
    return f"{clean(drift.versus)}: |Δp| at most {drift.max_abs:.2g}{steps}, {flips} in {drift.rows:,} rows"


def attack_text(drift: Drift) -> str | None:
    """ "lira.online tpr@1%fpr 15.4% here, 15.4% with the host's answers"; None where not compared."""
    if drift.attack is None or drift.here is None or drift.there is None or drift.metric is None:
        return None
    told = decimal if drift.metric == "auc" else percent
    name, metric = clean(drift.attack), clean(drift.metric)
    there = f"{told(drift.there)} with the {clean(drift.versus)}'s answers"
    return f"{name} {metric} {told(drift.here)} here, {there}"


def latency_text(artifact: ArtifactResult) -> str:
    """ "41 µs, p95 52 µs, first 310 µs": of single rows."""
    found = artifact.performance
    if found is None:
        return "–"
    parts = (microseconds(found.median_us), microseconds(found.p95_us), microseconds(found.first_us))
    return "{} median, p95 {}, first {}".format(*parts)


def memory_text(artifact: ArtifactResult) -> str:
    """ "24.1 MiB peak, 9.3 MiB of it before the file"."""
    found = artifact.performance
    if found is None:
        return "–"
    return f"{size(found.peak_memory_bytes)} peak, {size(found.memory_before_bytes)} of it before the file"


def microseconds(value: float) -> str:
    """A time in the unit that fits: "41 µs", "3.2 ms"."""
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.1f} ms"
