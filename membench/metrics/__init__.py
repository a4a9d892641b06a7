"""What a run comes to: pure functions from stored scores and matches to rows of :class:`membench.metrics.rows.Metric`."""
