"""The sweep: models over the cells of a suite, into a results file and summaries."""
