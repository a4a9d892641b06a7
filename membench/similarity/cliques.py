"""Generation density: how many draws of one condition agree (Carlini et al. 2023,
section on Stable Diffusion).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import networkx as nx


def largest_clique(distances: np.ndarray, threshold: float) -> int:
    """Size, 1..n, of the largest set of draws that all lie within ``threshold`` of each
    other.

    distances: [n, n], symmetric, n >= 2 draws, in tiled L2
    (:func:`membench.similarity.l2.tiled_l2_matrix`); an edge joins draws with distance
    <= threshold. Carlini et al. call a prompt memorized from a clique of 10 in 500
    draws. Raises ValueError for fewer than 2 draws, an array that is not square, or
    NaN.
    """
    import networkx as nx

    _check(distances)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(distances)))
    graph.add_edges_from(np.argwhere(np.triu(distances <= threshold, 1)).tolist())
    return max(_clique_number(graph.subgraph(part)) for part in nx.connected_components(graph))


def density_score(distances: np.ndarray, threshold: float) -> float:
    """Clique size plus a tie-break: a ranking score, higher = more memorized, in (1, n
    + 0.5].

    score = clique + 0.5 / (1 + mean distance over all pairs). Carlini's clique size
    takes few values and so ties most examples; the second term, membench's own, orders
    those by how near the draws lie and never outweighs one draw. Arguments and errors
    as in :func:`largest_clique`.
    """
    clique = largest_clique(distances, threshold)
    return clique + 0.5 / (1 + float(distances[np.triu_indices(len(distances), 1)].mean()))


def _clique_number(graph: nx.Graph) -> int:
    import networkx as nx

    # What the complement does not connect is joined completely, so the sizes add up.
    # Without this step a set of draws that all agree, the plainest case of
    # memorization, takes the search minutes.
    parts = nx.connected_components(nx.complement(graph))
    return sum(len(nx.max_weight_clique(graph.subgraph(part), weight=None)[0]) for part in parts)


def _check(distances: np.ndarray) -> None:
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be square, not {distances.shape}")
    if len(distances) < 2:
        raise ValueError("a clique needs at least 2 draws")
    if np.isnan(distances).any():
        raise ValueError("a distance is NaN")
