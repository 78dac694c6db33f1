"""The mini corpus: sentences of a small grammar, synthetic speech and a rendered talking face."""
