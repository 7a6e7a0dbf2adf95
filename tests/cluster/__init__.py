"""A real Kubernetes with the training operator, started by the tests on this machine; see docs/test-cluster.md."""
