"""The set decoder, told the merge map: what is left of the leakage when layout hides nothing."""

from __future__ import annotations

from leakgauge.attacks.networks.set_network import MappedNetwork
from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.harness.contracts.declarations import Knowledge


class SourceMapOracle(SetDecoder):
    """Copies every token to all its source patches and paints with the set decoder's network.

    The strongest attack with that knowledge that we know of, and no upper bound: another attack that is told the map,
    a linear one among them, may rebuild more on some payloads, so put several beside it. What it rebuilds beyond an
    attack that has to find the layout is what lost layout hides, for lost layout is not lost information. Options are
    those of the set decoder.
    """

    name = "source_map_oracle"
    knowledge = Knowledge(merge_map=True)
    _network_class = MappedNetwork
