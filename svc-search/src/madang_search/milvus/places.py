"""Where documents go, in a form that Milvus can filter by: cells that cover each disc."""

import math

import h3

from madang.common.v1 import place_pb2
from madang.search.v1 import search_pb2 as pb

_COARSEST, _FINEST = 3, 9
_EVERYWHERE = 0
_NARROW = 0.75
"""Cells of a resolution differ in size; the smallest edges are about this much of the mean."""


def cover(document: pb.Document) -> list[int]:
    """H3 cells that hold every point to which a document is delivered, some 40 at most."""
    radius = document.delivery_radius_km
    if not radius:
        return [_EVERYWHERE]
    fits = (r for r in range(_FINEST, _COARSEST, -1) if radius <= 3 * _edge(r))
    resolution = next(fits, _COARSEST)
    centre = h3.latlng_to_cell(document.place.latitude, document.place.longitude, resolution)
    # Centres of neighbours are at least 1.5 edges apart along any way through the grid.
    rings = math.ceil(radius / (1.5 * _NARROW * _edge(resolution))) + 1
    return [h3.str_to_int(cell) for cell in h3.grid_disk(centre, rings)]


def cells_of(place: place_pb2.Place) -> list[int]:
    """What a document's cells must share with these to be delivered here."""
    return [_EVERYWHERE] + [
        h3.str_to_int(h3.latlng_to_cell(place.latitude, place.longitude, resolution))
        for resolution in range(_COARSEST, _FINEST + 1)
    ]


def _edge(resolution: int) -> float:
    return float(h3.average_hexagon_edge_length(resolution, unit="km"))
