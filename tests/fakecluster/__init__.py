"""An API server in memory, for real helm and kubectl where no cluster is."""
