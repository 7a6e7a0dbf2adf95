"""The Helm chart, rendered by real Helm 3 and Helm 4; nothing here reaches a cluster."""
