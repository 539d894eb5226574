"""Durable jobs: the record, its states, the queue, lanes and admission; knows nothing of plugins."""
