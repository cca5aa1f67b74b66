"""What the load tests found, as pages a person reads and as JUnit XML; measures nothing."""
