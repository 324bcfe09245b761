"""The bound on what layout can hide: the set decoder, told the merge map."""

from __future__ import annotations

from attacks.networks.set_network import MappedNetwork
from attacks.set_decoder import SetDecoder
from harness.contracts import Knowledge


class SourceMapOracle(SetDecoder):
    """Copies every token to all its source patches and paints with the set decoder's network.

    An upper bound on attacks that have to find the layout: lost layout is not lost information. Options are those of
    the set decoder.
    """

    name = "source_map_oracle"
    knowledge = Knowledge(merge_map=True)
    _network_class = MappedNetwork
