"""The private names of prometheus_client's histogram that this package relies on."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from engineio_wsgi.vendors.prometheus_metrics import BatchHistogram


def histogram() -> BatchHistogram:
    """One with three classes."""
    return BatchHistogram("seconds", "Text.", ("path",), registry=CollectorRegistry(), buckets=(1, 2)).labels("/")


def samples(of: BatchHistogram) -> dict[tuple[str, str], float]:
    """Its values, by name and upper bound."""
    (metric,) = of.collect()
    return {(sample.name, sample.labels.get("le", "")): sample.value for sample in metric.samples
            if not sample.name.endswith("_created")}


def test_many_observations_count_as_each_of_them_would() -> None:
    one_by_one, at_once = histogram(), histogram()
    for seconds in (0.5, 0.5, 1.5, 7):
        one_by_one.observe(seconds)
    at_once.add([2, 1, 1], 9.5)
    assert samples(at_once) == samples(one_by_one)
