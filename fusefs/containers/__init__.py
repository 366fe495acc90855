"""containerd's snapshots: lazy layers, ordinary ones, and the pulls that bring them."""
