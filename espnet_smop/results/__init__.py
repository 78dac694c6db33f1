"""From hypotheses to results: error rates, their intervals and significance, and the report."""
