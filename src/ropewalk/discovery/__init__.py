"""A name -> live instances -> one of them -> a Handler. Takes a factory of connections, so that it knows no wire."""
