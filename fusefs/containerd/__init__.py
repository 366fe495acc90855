"""containerd's gRPC API, as much of it as a snapshotter and a puller need: messages and calls."""
